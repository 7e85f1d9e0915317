"""What a search tries, for Optuna and back: every value is a name there, so that a list may hold anything."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stilla.check.spaces import takes_whole_numbers
from stilla.recipe import Range, Recipe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LISTED = 10_000
"""Combinations up to which all are listed, to see which are left."""

Params = dict[str, Any]
"""As Optuna has them: numbers of a range, and a list's values as JSON."""


@dataclass(frozen=True)
class Space:
    """`whole`: ranges of fields that take only whole numbers."""

    values: Mapping[str, Range | tuple[Any, ...]]
    whole: frozenset[str]

    @classmethod
    def of(cls, recipe: Recipe) -> Space:
        assert recipe.search is not None
        over = recipe.search.over
        return cls(over, frozenset(path for path, values in over.items()
                                   if isinstance(values, Range) and takes_whole_numbers(recipe, path, values)))

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for path, values in self.values.items():
            if not isinstance(values, Range):
                found[path] = CategoricalDistribution(tuple(map(_name, values)))
            elif path in self.whole:
                found[path] = IntDistribution(int(values.low), int(_last(values)), values.log, int(values.step or 1))
            else:
                found[path] = FloatDistribution(values.low, self._on_a_step(path, values, _last(values)), values.log,
                                                values.step)
        return found

    def meant(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values as a recipe has them, in the recipe's order."""
        return {path: value if isinstance(self.values[path], Range) else json.loads(value)
                for path, value in self.exact(params).items()}

    def exact(self, params: Mapping[str, Any]) -> Params:
        """The same, each number of a range with steps written in one way: 0.3, not 0.1 + 2 · 0.1."""
        return {path: self._on_a_step(path, values, params[path]) if isinstance(values, Range) else params[path]
                for path, values in self.values.items()}

    def named(self, values: Mapping[str, Any]) -> Params | None:
        """The values as Optuna has them; None where one of them is not among those that are tried."""
        params = {path: self._param(path, tried, values.get(path)) for path, tried in self.values.items()}
        return None if None in params.values() else params

    def holds(self, path: str, value: Any) -> bool:
        """Whether the value is among those that are tried of a field."""
        return self._param(path, self.values[path], value) is not None

    def _param(self, path: str, tried: Range | tuple[Any, ...], value: Any) -> Any:
        """As Optuna has it; None where it is not tried. A list's 2 is a recipe's 2.0."""
        if not isinstance(tried, Range):
            return next((_name(one) for one in tried if _name(one) == _name(value)
                         or (_is_number(one) and _is_number(value) and one == value)), None)
        if not _is_number(value) or not self._lies_in(path, tried, value):
            return None
        return self._on_a_step(path, tried, float(value))

    @property
    def size(self) -> float:
        """How many combinations there are."""
        return math.prod(map(self._count, self.values))

    def combinations(self) -> list[Params]:
        """All of them, where they are few enough to be listed."""
        if self.size > LISTED:
            return []
        each = [self._numbers(path, values) if isinstance(values, Range) else list(map(_name, values))
                for path, values in self.values.items()]
        return [dict(zip(self.values, one, strict=True)) for one in itertools.product(*each)]

    def _count(self, path: str) -> float:
        values = self.values[path]
        if not isinstance(values, Range):
            return len(values)
        step = self._step(path, values)
        return math.inf if step is None else _steps(values, step) + 1

    def _numbers(self, path: str, values: Range) -> list[float]:
        step = self._step(path, values)
        assert step is not None  # else there would be too many to list
        return [self._on_a_step(path, values, values.low + number * step) for number in range(_steps(values, step) + 1)]

    def _on_a_step(self, path: str, values: Range, value: float) -> float:
        """The number that its step means, without what was lost in adding up."""
        if path in self.whole:
            return int(value)
        if values.step is None:
            return value
        return float(f"{values.low + round((value - values.low) / values.step) * values.step:.12g}")

    def _step(self, path: str, values: Range) -> float | None:
        """From one number to the next; None where there is another between any two."""
        return 1 if values.step is None and path in self.whole else values.step

    def _lies_in(self, path: str, values: Range, value: float) -> bool:
        steps = 0.0 if values.step is None else (value - values.low) / values.step
        return values.low <= value <= values.high and abs(steps - round(steps)) < 1e-9 and (
            path not in self.whole or value == int(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _last(values: Range) -> float:
    """The highest number that its steps reach."""
    if values.step is None:
        return values.high
    return values.low + _steps(values, values.step) * values.step


def _steps(values: Range, step: float) -> int:
    """How many lie between its ends."""
    return math.floor((values.high - values.low) / step + 1e-9)
