"""Whether a training has converged at its end, by what was measured on validation data along the way. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

Points = Sequence[tuple[float, float]]
"""(step, value), steps rising."""

LATE, MUCH = 0.2, 0.05
"""A training's last part, and the share of all its progress that it should not have made only there."""
FEWEST = 5
"""Evaluations of which it can be said where progress was made."""

Why = Literal["growing", "converged", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """At the end of a part of a training that may go on. `gained`: the share of all progress that came last, where there was
    progress. `parts`: that it has had, each as long as the first."""

    why: Why
    gained: float | None
    parts: int

    @classmethod
    def of(cls, points: Points, part: int, *, higher_is_better: bool) -> Self:
        """Of a training whose parts have `part` steps, at the end of one: the last of its `points`.

        With v_0 the first evaluation and v_k the one at the end of part k, larger for better, the k-th has gained
        (v_k - v_(k-1)) / (v_k - v_0): two ends are compared, as the learning rate is equally low there. Of the first part
        alone nobody knows what a longer one would have brought; what stands in for v_(k-1) is the last evaluation before its
        last `LATE`. More than `MUCH`, and the training is still growing.
        """
        sign = 1.0 if higher_is_better else -1.0
        parts = max(1, round(points[-1][0] / part)) if points else 1
        before = _before(points, part, parts)
        if not points or points[-1][0] != parts * part or before is None:
            return cls("unknown", None, parts)
        gain, whole = (sign * (points[-1][1] - one) for one in (before, points[0][1]))
        growing = gain > MUCH * max(whole, 0.0)
        return cls("growing" if growing else "converged", max(gain, 0.0) / whole if whole > 0 else None, parts)


@dataclass(frozen=True)
class Ending:
    """How a training that may go on has ended. `measure`: by which; `most`: parts that it might have had."""

    verdict: Verdict
    measure: str
    most: int
    part: int

    def plain(self) -> dict[str, Any]:
        return {"why": self.verdict.why, "gained": self.verdict.gained, "parts": self.verdict.parts, "most": self.most,
                "part": self.part, "measure": self.measure}

    @classmethod
    def read(cls, plain: object) -> Ending | None:
        """None of what a log does not say so."""
        if not isinstance(plain, Mapping):
            return None
        try:
            return cls(Verdict(plain["why"], plain["gained"], int(plain["parts"])), str(plain["measure"]),
                       int(plain["most"]), int(plain["part"]))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def goes_on(self) -> bool:
        return self.verdict.why == "growing" and self.verdict.parts < self.most

    def said(self, title: str) -> str:
        """What is true of the training, in words: `converged after twice its steps: its last part made 2% of all progress in
        KL`. `title`: the measure as people call it."""
        often = {1: "its steps", 2: "twice its steps"}.get(self.verdict.parts, f"{self.verdict.parts} times its steps")
        if self.verdict.why == "converged":
            return f"converged after {often}: {self.why(title)}"
        if self.verdict.why == "growing":
            return f"stopped at its limit of {often}, not yet converged: {self.why(title)}"
        return f"stopped after {often}, as nobody can say whether it has converged: {self.why(title)}"

    def why(self, title: str) -> str:
        if self.verdict.why == "unknown":
            return (f"there are fewer than {FEWEST} evaluations of {title}, or none at its end" if self.verdict.parts == 1
                    else f"{title} is not known at both ends of its last part")
        last = f"its last {LATE:.0%}" if self.verdict.parts == 1 else "its last part"
        if self.verdict.gained is None:
            return f"{last} made it {'no ' if self.verdict.why == 'converged' else ''}better in {title}, below where it began"
        return f"{last} made {self.verdict.gained:.0%} of all progress in {title}"


def late_progress(points: Points) -> float | None:
    """Which share of all that was gained, in either direction, came at the end; None of too few points to say so."""
    if len(points) < FEWEST:
        return None
    first, last, then = points[0][1], points[-1][1], _then(points)
    return None if first == last else (last - then) / (last - first)


def _before(points: Points, part: int, parts: int) -> float | None:
    """What the end of the last part is compared with."""
    if parts > 1:
        return dict(points).get((parts - 1) * part)
    return _then(points) if len(points) >= FEWEST else None


def _then(points: Points) -> float:
    """The last value before the last part of all steps; the first where there is none."""
    until = (1 - LATE) * points[-1][0]
    return next((value for step, value in reversed(points) if step <= until), points[0][1])
