"""Which numbers the fields of `transformers.TrainingArguments` may be: it takes any, and some do nothing, or harm.

Fields that a recipe says by keys of its own have their bounds there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stilla.recipe.section import BATCH, STEPS


@dataclass(frozen=True)
class Range:
    """From `least` to `most`. `open_`: the ends themselves are not in it. `fraction`: a whole number, or a fraction of the
    steps, between 0 and 1."""

    least: float
    most: float
    open_: tuple[bool, bool] = (False, False)
    fraction: bool = False

    def holds(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.fraction:
            return 0 < value < 1 or (value == int(value) and self.least <= value <= self.most)
        above = value > self.least if self.open_[0] else value >= self.least
        return above and (value < self.most if self.open_[1] else value <= self.most)

    def __str__(self) -> str:
        if self.fraction:
            return f"a whole number from {self.least:g} to {self.most:.0f}, or a fraction of the steps between 0 and 1"
        first = "above" if self.open_[0] else "from"
        return f"a number {first} {self.least:g} {'to below' if self.open_[1] else 'to'} {self.most:.10g}"


_EVERY = Range(1, STEPS, fraction=True)
RANGES: Mapping[str, Range] = {
    "adam_beta1": Range(0, 1, (False, True)),
    "adam_beta2": Range(0, 1, (False, True)),
    "adam_epsilon": Range(0, 1, (True, False)),
    "max_grad_norm": Range(0, 1e6),
    "torch_empty_cache_steps": Range(1, STEPS),
    "logging_steps": _EVERY,
    "eval_steps": _EVERY,
    "save_steps": _EVERY,
    "eval_delay": Range(0, STEPS),
    "per_device_eval_batch_size": Range(1, BATCH),
    "save_total_limit": Range(1, 1_000_000),
    "dataloader_num_workers": Range(0, 1024),
    "dataloader_prefetch_factor": Range(1, 10_000),
    "ddp_bucket_cap_mb": Range(1, 1_000_000),
    "ddp_timeout": Range(1, STEPS),
}
"""Of every field that is a number."""


def outside(name: str, value: object) -> str | None:
    """What a field's number is expected to be, where it is another; None where it is right."""
    if name not in RANGES or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if RANGES[name].holds(value) else str(RANGES[name])
