"""How long and how fast a student learns where a recipe does not say; docs/defaults.md tells what was measured for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

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

    def passes(self, examples: float, at_once: int, longer: float = 1.0) -> int:
        """Over so many examples, of which a step takes `at_once`. `longer`: so many times the steps."""
        return max(self.least, min(self.most, math.ceil(longer * self.steps * at_once / examples)))


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
LONGEST = 3.0
"""So many times the steps at most, for students narrower than `WIDTH`: their steps are cheap, and more of them gain much."""


def settled(recipe: Recipe, teacher: nn.Module, examples: float) -> Recipe:
    """The recipe with a length and a rate in every stage. `examples`: all that the student learns from, as it reads them."""
    rate, longer = rate_of(recipe.student, teacher, examples), longer_by(recipe.student, teacher)
    return recipe.model_copy(update={"distill": tuple(_settled(stage, rate, examples, longer) for stage in recipe.distill)})


def _settled(stage: Stage, rate: float, examples: float, longer: float) -> Stage:
    settled: dict[str, object] = {} if stage.learning_rate is not None else {"learning_rate": rate}
    if stage.epochs is None and stage.max_steps is None:
        effort = stage.effort or STANDARD
        settled |= {"effort": effort, "epochs": float(BUDGETS[effort].passes(examples, at_once(stage), longer))}
    return stage.model_copy(update=settled)


def at_once(stage: Stage) -> int:
    """Examples of a step, over all processes."""
    return stage.batch_size * stage.accumulate * int(processes().num_processes)


def rate_of(student: StudentSpec, teacher: nn.Module, examples: float) -> float:
    """The peak learning rate: in proportion to one over the width, as the best rates of wider models are smaller."""
    if student.config is not None:
        return RANDOM
    width = _width_of_student(student, teacher)
    wide = RATE if width is None else min(FASTEST, RATE * WIDTH / width)
    return float(f"{max(SLOWEST, wide * math.sqrt(min(1.0, examples / MANY))):.2g}")


def longer_by(student: StudentSpec, teacher: nn.Module) -> float:
    """How many times the steps of an effort a student takes, as a narrow one gains by more of them."""
    width = _width_of_student(student, teacher)
    return 1.0 if width is None else max(1.0, min(LONGEST, WIDTH / width))


def _width_of_student(student: StudentSpec, teacher: nn.Module) -> float | None:
    if student.config is not None:
        return width_of(teacher, student.config)
    width = width_of(teacher)
    return width if width is None or student.width is None else student.width.hidden_of(width)


def width_of(model: nn.Module, changes: Mapping[str, Any] = MappingProxyType({})) -> int | None:
    """Of the widest part of a Hugging Face model, with these `changes` of its config; None of any other."""
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        return None
    found = [size for path, section in config_sections(config) for size in _widths(section, _at(changes, path))]
    return max(found, default=None)


def _at(changes: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for name in path:
        inner = changes.get(name)
        changes = inner if isinstance(inner, Mapping) else {}
    return changes


def _widths(config: PreTrainedConfig, changes: Mapping[str, Any]) -> list[int]:
    own = config.attribute_map
    fields = {**vars(config), **{own.get(name, name): value for name, value in changes.items()}}
    said = [fields[name] for name in {own.get(name, name) for name in ("hidden_size", "hidden_sizes")} if fields.get(name)]
    return [size for one in said for size in (one if isinstance(one, list | tuple) else [one]) if isinstance(size, int)]
