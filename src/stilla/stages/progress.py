"""Whether trainings were over when they ended: which were still getting better, and which ended early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stilla.report.curves import Points, StageLog, read_log
from stilla.scores import Scores, metric_title

LATE, MUCH = 0.2, 0.05
"""A training's last part, and the share of all its progress that it should not have made only there."""
FEWEST = 5
"""Evaluations of which it can be said where progress was made."""


def still_growing(log: Path) -> Iterator[tuple[str, str]]:
    """Trainings, the teacher's among them, that made much of their progress in their last part: whose, and how much."""
    for stage in _first_seeds(log):
        measure = "kl" if "kl" in stage.evaluations else next(iter(stage.evaluations), None)
        late = None if measure is None else late_progress(stage.evaluations[measure])
        if measure is not None and late is not None and late > MUCH:
            yield stage.subject, (f"made {late:.0%} of its progress in {metric_title(measure)} in its last {LATE:.0%}; a "
                                  "longer one may gain more")


def ended_early(log: Path) -> Iterator[tuple[str, str]]:
    """Trainings that patience ended before the steps that they were given: whose, and where."""
    for stage in _first_seeds(log):
        if stage.ended_at is not None and stage.ended_at < 1:
            yield stage.subject, f"ended after {stage.ended_at:.0%} of what it was given, as nothing became better"


def said_in(scores: Scores, log: Path, ours: Sequence[str]) -> Scores:
    """The scores with why the trainings of these subjects ended, and what that leaves open."""
    found = [f"training {'on labels alone' if subject == 'baseline' else f'of the {subject}'}: it {said}"
             for subject, said in (*ended_early(log), *still_growing(log)) if subject in ours]
    return replace(scores, notes=(*scores.notes, *found))


def late_progress(points: Points) -> float | None:
    """Which share of all that was gained, in either direction, came at the end; None of too few points to say so."""
    if len(points) < FEWEST:
        return None
    first, last = points[0][1], points[-1][1]
    then = next(value for step, value in reversed(points[:-1]) if step <= (1 - LATE) * points[-1][0]) \
        if points[0][0] <= (1 - LATE) * points[-1][0] else first
    return None if first == last else (last - then) / (last - first)


def _first_seeds(log: Path) -> Iterator[StageLog]:
    return (stage for stage in read_log(log)[0].stages if not stage.seed)
