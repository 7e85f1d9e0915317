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
                found[path] = FloatDistribution(values.low, _last(values), values.log, values.step)
        return found

    def meant(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values as a recipe has them, in the recipe's order."""
        return {path: params[path] if isinstance(values, Range) else json.loads(params[path])
                for path, values in self.values.items()}

    def named(self, values: Mapping[str, Any]) -> Params | None:
        """The values as Optuna has them; None where one of them is not among those that are tried."""
        params: Params = {}
        for path, tried in self.values.items():
            value = values.get(path)
            if isinstance(tried, Range):
                if isinstance(value, bool) or not isinstance(value, int | float) or not self._lies_in(path, tried, value):
                    return None
                params[path] = int(value) if path in self.whole else float(value)
            elif _name(value) in map(_name, tried):
                params[path] = _name(value)
            else:
                return None
        return params

    @property
    def size(self) -> float:
        """How many combinations there are."""
        return math.prod(map(self._count, self.values))

    def combinations(self) -> list[Params]:
        """All of them, where they are few enough to be listed."""
        if self.size > LISTED:
            return []
        each = [range(int(values.low), int(_last(values)) + 1, int(values.step or 1)) if isinstance(values, Range)
                else list(map(_name, values)) for values in self.values.values()]
        return [dict(zip(self.values, one, strict=True)) for one in itertools.product(*each)]

    def _count(self, path: str) -> float:
        values = self.values[path]
        if not isinstance(values, Range):
            return len(values)
        return (_last(values) - values.low) // (values.step or 1) + 1 if path in self.whole else math.inf

    def _lies_in(self, path: str, values: Range, value: float) -> bool:
        steps = 0.0 if values.step is None else (value - values.low) / values.step
        return values.low <= value <= values.high and abs(steps - round(steps)) < 1e-9 and (
            path not in self.whole or value == int(value))


def _name(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _last(values: Range) -> float:
    """The highest number that its steps reach."""
    if values.step is None:
        return values.high
    return values.low + math.floor((values.high - values.low) / values.step + 1e-9) * values.step
