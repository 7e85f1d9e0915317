"""Numbers that change over training: a constant, a line, a half cosine, steps.

Written in a recipe as a plain number or as one key: `{linear: [1.0, 0.0]}`, `{cosine: [1.0, 0.1]}`,
`{steps: [[0.0, 1.0], [0.5, 0.2]]}` (from progress 0.5 on: 0.2). Progress is the fraction of the optimiser
steps of the stage that are done, so a schedule means the same for every length of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from stilla.errors import RecipeError, did_you_mean, one_of, short


@runtime_checkable
class Schedule(Protocol):
    """Progress 0..1 -> value."""

    def __call__(self, progress: float) -> float: ...

    def values(self) -> tuple[float, ...]:
        """Every value that bounds the schedule: what a range check has to look at."""
        ...

    def plain(self) -> object:
        """As a recipe writes it."""
        ...


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, progress: float) -> float:
        return self.value

    def values(self) -> tuple[float, ...]:
        return (self.value,)

    def plain(self) -> object:
        return self.value


@dataclass(frozen=True)
class Linear:
    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * _clip(progress)

    def values(self) -> tuple[float, ...]:
        return (self.start, self.end)

    def plain(self) -> object:
        return {"linear": [self.start, self.end]}


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from start to end: flat at both ends."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * _clip(progress))) / 2

    def values(self) -> tuple[float, ...]:
        return (self.start, self.end)

    def plain(self) -> object:
        return {"cosine": [self.start, self.end]}


@dataclass(frozen=True)
class Steps:
    """Each pair says from which progress on a value holds; the first starts at 0."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, progress: float) -> float:
        return [value for start, value in self.points if start <= _clip(progress)][-1]

    def values(self) -> tuple[float, ...]:
        return tuple(value for _, value in self.points)

    def plain(self) -> object:
        return {"steps": [list(point) for point in self.points]}


SHAPES = ("linear", "cosine", "steps")


def schedule(value: float | Mapping[str, object] | Schedule) -> Schedule:
    """The schedule that a recipe's value means.

    Raises:
        RecipeError: not a number, not one of the shapes, or the shape's numbers are wrong.
    """
    if isinstance(value, Constant | Linear | Cosine | Steps):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(_finite(value))
    if not isinstance(value, Mapping) or len(value) != 1:
        raise RecipeError(f"got {_shown(value)}; expected a number or one of {{linear: [from, to]}}, "
                          "{cosine: [from, to]}, {steps: [[progress, value], ...]}")
    ((shape, numbers),) = value.items()
    if shape not in SHAPES:
        raise RecipeError(f"got schedule {_shown(shape)}; expected {one_of(SHAPES)}.{did_you_mean(shape, SHAPES)}")
    if shape == "steps":
        return Steps(_points(numbers))
    start, end = _pair(numbers, f"{shape}: [from, to]")
    return Linear(start, end) if shape == "linear" else Cosine(start, end)


def _points(numbers: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not numbers:
        raise RecipeError(f"got steps {_shown(numbers)}; expected [[progress, value], ...]")
    points = tuple(_pair(pair, "steps: [[progress, value], ...]") for pair in numbers)
    starts = [start for start, _ in points]
    if starts[0] != 0 or sorted(set(starts)) != starts or starts[-1] > 1:
        raise RecipeError(f"got steps at progress {_shown(starts)}; expected rising numbers from 0.0 to at most 1.0")
    return points


def _pair(numbers: object, form: str) -> tuple[float, float]:
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or len(numbers) != 2:
        raise RecipeError(f"got {_shown(numbers)}; expected {form}")
    return _finite(numbers[0]), _finite(numbers[1])


def _finite(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise RecipeError(f"got {_shown(number)}; expected a finite number")
    return float(number)


def _shown(value: object) -> str:
    return short(repr(value), 80)


def _clip(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)
