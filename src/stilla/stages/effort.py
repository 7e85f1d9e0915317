"""How long and how fast a student learns where a recipe does not say; docs/defaults.md tells what was measured for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedConfig

from stilla.models.configs import config_sections
from stilla.recipe import Recipe, Stage, StudentSpec
from stilla.runtime.processes import processes


@dataclass(frozen=True)
class Budget:
    """Optimiser steps that an effort is worth, within so many whole passes over the data: few examples are not gone over for
    ever, many are all seen."""

    steps: int
    least: int
    most: int

    def passes(self, examples: float, at_once: int) -> int:
        """Over so many examples, of which a step takes `at_once`."""
        return max(self.least, min(self.most, math.ceil(self.steps * at_once / examples)))


BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(500, 3, 10), "standard": Budget(4_000, 3, 30), "thorough": Budget(16_000, 10, 100)}

STANDARD: Literal["standard"] = "standard"
RATE, WIDTH = 3e-4, 384
"""The rate that is best for a student that begins with its teacher's weights, and its width: a wider one takes less."""
SLOWEST, FASTEST = 5e-5, 1e-3
MANY = 4_000
"""Examples from which on the rate is the same; of fewer it is less, by the square root of their number: a student that begins
with its teacher's weights loses with few examples, gone over often, what it would not learn again."""
RANDOM = 1e-3
"""The rate of random weights, whatever their width."""


def settled(recipe: Recipe, teacher: nn.Module, examples: float) -> Recipe:
    """The recipe with a length and a rate in every stage. `examples`: all that the student learns from, as it reads them."""
    rate = rate_of(recipe.student, teacher, examples)
    return recipe.model_copy(update={"distill": tuple(_settled(stage, rate, examples) for stage in recipe.distill)})


def _settled(stage: Stage, rate: float, examples: float) -> Stage:
    settled: dict[str, object] = {} if stage.learning_rate is not None else {"learning_rate": rate}
    if stage.epochs is None and stage.max_steps is None:
        effort = stage.effort or STANDARD
        settled |= {"effort": effort, "epochs": float(BUDGETS[effort].passes(examples, at_once(stage)))}
    return stage.model_copy(update=settled)


def at_once(stage: Stage) -> int:
    """Examples of a step, over all processes."""
    return stage.batch_size * stage.accumulate * int(processes().num_processes)


def rate_of(student: StudentSpec, teacher: nn.Module, examples: float) -> float:
    """The peak learning rate: in proportion to one over the width, as the best rates of wider models are smaller."""
    if student.config is not None:
        return RANDOM
    width: float | None = width_of(teacher)
    if width is not None and student.width is not None:
        width = student.width.hidden_of(int(width))
    wide = RATE if width is None else min(FASTEST, RATE * WIDTH / width)
    return float(f"{max(SLOWEST, wide * math.sqrt(min(1.0, examples / MANY))):.2g}")


def width_of(model: nn.Module) -> int | None:
    """Of the widest part of a Hugging Face model; None of any other."""
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        return None
    found = [size for _, section in config_sections(config) for size in _widths(section)]
    return max(found, default=None)


def _widths(config: PreTrainedConfig) -> list[int]:
    names = {config.attribute_map.get(name, name) for name in ("hidden_size", "hidden_sizes")}
    said = [vars(config)[name] for name in names if vars(config).get(name)]
    return [size for one in said for size in (one if isinstance(one, list | tuple) else [one]) if isinstance(size, int)]
