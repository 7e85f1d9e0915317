"""One trial of a search, as plain data: what was tried, what it reached, or why it could not be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stilla.scores import Interval


@dataclass(frozen=True)
class Reached:
    """On validation data. `teacher`: None where it was not measured beside its student. `cache`: the recipe's section as the
    trial had it, with what was left open. `seeds`: the metric of each, where there are several. `left`: how many more of them
    were not trained, as it lay behind the best. `growing`: whose training (the student's, the teacher's) was still getting
    better when it ended, and how much."""

    metric: str
    higher_is_better: bool
    quality: Interval
    teacher: float | None
    retention: float | None
    parameters: int
    seconds: float
    cache: Mapping[str, Any]
    seeds: tuple[float, ...] = ()
    growing: Mapping[str, str] = field(default_factory=dict)
    left: int = 0

    @property
    def score(self) -> float:
        """More is better, whatever the metric."""
        return self.quality.value if self.higher_is_better else -self.quality.value

    def is_behind(self, best: Reached) -> bool:
        """Beyond noise: the intervals of both do not touch."""
        return self.quality.high < best.quality.low if self.higher_is_better else self.quality.low > best.quality.high

    def plain(self) -> dict[str, Any]:
        one = self.quality
        return {**vars(self), "quality": [one.value, one.low, one.high]}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Reached:
        return cls(**{**plain, "quality": Interval(*plain["quality"]), "seeds": tuple(plain["seeds"])})


@dataclass(frozen=True)
class Trial:
    """`values` by path. Neither `reached` nor a `problem`: it is not finished. `order`: among the finished ones."""

    number: int
    values: Mapping[str, Any]
    reached: Reached | None = None
    problem: str | None = None
    order: int | None = None

    @property
    def running(self) -> bool:
        return self.reached is None and self.problem is None


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """Of equals the first."""
    made = [one for one in trials if one.reached is not None]
    return min(made, key=lambda one: (-_score(one), one.number), default=None)


def in_order(trials: Iterable[Trial]) -> list[Trial]:
    """Those that are finished, as they were."""
    return sorted((one for one in trials if one.order is not None), key=lambda one: one.order or 0)


def since_better(trials: Sequence[Trial]) -> int:
    """How many of the last in a row brought nothing better than the best before."""
    best, since = -float("inf"), 0
    for one in in_order(trials):
        if one.reached is not None and one.reached.score > best:
            best, since = one.reached.score, 0
        else:
            since += 1
    return since


def _score(one: Trial) -> float:
    return one.reached.score if one.reached is not None else -float("inf")
