"""log.jsonl -> curves: what a stage's loss and its terms did, and its quality on validation data.

A line is `{"stage": "student", "step": 120, "loss": 0.51, "terms": {"labels": 0.2, "logits": 0.31}, ...}` or
`{"stage": "student", "step": 120, "evaluation": {"accuracy": 0.9}}`. In a name like `student-1.0` the first
number is the seed, the second the stage of a student that is trained in several; both may be missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilla.runtime.files import read_line

Points = Sequence[tuple[float, float]]
"""(step, value), steps rising, values finite."""

MOST_POINTS = 240
"""More would not be seen in a chart a few hundred pixels wide, and would make the page heavy."""

TOTAL = "total"
"""The name of the loss itself among its terms."""


@dataclass(frozen=True)
class StageLog:
    """One stage with one seed: curves by name (`total` and the terms), validation quality by metric.

    `subject`: whose training it is. `seed` and `part` are empty where the name does not say them. `ended_at`: after which
    part of the steps that it was given, where that was logged. `extended`: how it ended where it might have gone on, as the
    training logged it. `best`: which of its weights were kept, likewise.
    """

    subject: str
    seed: str
    part: str
    losses: Mapping[str, Points]
    evaluations: Mapping[str, Points]
    ended_at: float | None = None
    extended: Mapping[str, Any] | None = None
    best: Mapping[str, Any] | None = None

    @property
    def stage(self) -> tuple[str, str]:
        """What the seeds of one stage have in common."""
        return self.subject, self.part


@dataclass(frozen=True)
class Training:
    """All stages in the order of the log."""

    stages: tuple[StageLog, ...] = ()

    def without(self, subject: str) -> Training:
        """The same without what was trained of this one."""
        return Training(tuple(log for log in self.stages if log.subject != subject))

    def by_stage(self) -> dict[tuple[str, str], list[StageLog]]:
        """Stages, the seeds of each together."""
        found: dict[tuple[str, str], list[StageLog]] = {}
        for log in self.stages:
            found.setdefault(log.stage, []).append(log)
        return found


def read_log(path: Path) -> tuple[Training, int]:
    """The curves, and how many lines could not be read (half of one that a killed run left, damaged ones)."""
    if not path.is_file():
        return Training(), int(path.exists())
    unread = 0
    stages: dict[str, tuple[dict[str, dict[float, float]], dict[str, dict[float, float]]]] = {}
    ended: dict[str, float] = {}
    extended: dict[str, Mapping[str, Any]] = {}
    best: dict[str, Mapping[str, Any]] = {}
    for line in _lines(path):
        if line is None:
            unread += 1
            continue
        losses, evaluations = stages.setdefault(str(line["stage"]), ({}, {}))
        _note(losses, line["step"], {TOTAL: line.get("loss"), **_mapping(line.get("terms"))})
        _note(evaluations, line["step"], _mapping(line.get("evaluation")))
        if (here := _number(line.get("ended_at"))) is not None:
            ended[str(line["stage"])] = here
        if isinstance(how := line.get("extended"), Mapping):
            extended[str(line["stage"])] = how
        if isinstance(which := line.get("best"), Mapping):
            best[str(line["stage"])] = which
    found = tuple(_stage(name, *curves, ended.get(name), extended.get(name), best.get(name))
                  for name, curves in stages.items() if any(curves))
    return Training(found), unread


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most `most` points: means over neighbours, so that noise becomes smaller, not larger."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / most)
    groups = (points[start:start + size] for start in range(0, len(points), size))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line that speaks of a stage's step; `None` for one that cannot be read."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not text.strip():
            continue
        try:
            line = read_line(text)
        except (ValueError, RecursionError):
            yield None
            continue
        if not isinstance(line, dict):
            yield None
        elif "stage" in line and _number(line.get("step")) is not None:
            yield line


def _note(curves: dict[str, dict[float, float]], step: float, values: Mapping[str, Any]) -> None:
    """A step that is logged twice was repeated after resuming: the later line is what the model saw."""
    for name, value in values.items():
        number = _number(value)
        if number is not None:
            curves.setdefault(str(name), {})[float(step)] = number


def _stage(name: str, losses: Mapping[str, Mapping[float, float]],
           evaluations: Mapping[str, Mapping[float, float]], ended_at: float | None,
           extended: Mapping[str, Any] | None, best: Mapping[str, Any] | None) -> StageLog:
    found = re.fullmatch(r"(.+?)(?:-(?:seed)?(\d+))?(?:\.(\d+))?", name)
    subject, seed, part = found.groups(default="") if found else (name, "", "")
    return StageLog(subject, seed, part, _sorted(losses), _sorted(evaluations), ended_at, extended, best)


def _sorted(curves: Mapping[str, Mapping[float, float]]) -> dict[str, Points]:
    return {name: sorted(values.items()) for name, values in curves.items()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
