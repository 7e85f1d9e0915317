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
    """At the end of a part of a training that may go on. `gained`: the share of all progress that came last; None where it is
    not known. `parts`: that it has had, each as long as the first."""

    why: Why
    gained: float | None
    parts: int

    @classmethod
    def of(cls, points: Points, part: int, *, higher_is_better: bool) -> Self:
        """Of a training whose parts have `part` steps, at the end of one: the last of its `points`.

        With v_0 the first evaluation and B_k the best up to the end of part k, larger for better, the k-th part has gained
        (B_k - B_(k-1)) / (B_k - v_0): the best is what is kept. Where the learning rate falls, the best of a part lies at its
        end, and ends are compared, where it is equally low. Of the first part alone nobody knows what a longer one would have
        brought; what stands in for B_(k-1) is the best before its last `LATE`. More than `MUCH`, and it is still growing.
        """
        sign = 1.0 if higher_is_better else -1.0
        parts = max(1, round(points[-1][0] / part)) if points else 1
        until = (parts - 1) * part if parts > 1 else (1 - LATE) * part
        before = [sign * value for step, value in points if step <= until]
        if not before or points[-1][0] != parts * part or (parts == 1 and len(points) < FEWEST):
            return cls("unknown", None, parts)
        best = max(sign * value for _, value in points)
        whole = best - before[0]
        gained = (best - max(before)) / whole if whole else 0.0
        return cls("growing" if gained > MUCH else "converged", gained, parts)


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
        if self.verdict.gained is None:
            return (f"there are fewer than {FEWEST} evaluations of {title}, or none at its end" if self.verdict.parts == 1
                    else f"{title} is not known at both ends of its last part")
        last = f"its last {LATE:.0%}" if self.verdict.parts == 1 else "its last part"
        return f"{last} made {self.verdict.gained:.0%} of all progress in {title}"


def late_progress(points: Points) -> float | None:
    """Which share of all that was gained, in either direction, came at the end; None of too few points to say so."""
    if len(points) < FEWEST:
        return None
    first, last, until = points[0][1], points[-1][1], (1 - LATE) * points[-1][0]
    then = next((value for step, value in reversed(points) if step <= until), first)
    return None if first == last else (last - then) / (last - first)
