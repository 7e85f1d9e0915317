"""A demo with its teacher, and students of it that are taught in different ways: all are runs of Stilla under one folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import lend_baseline
from benchmarks.students import run_of
from benchmarks.tables import markdown
from stilla import Run
from stilla.recipe.file import read
from stilla.report import numbers
from stilla.samples.demo import prepare
from stilla.scores import Interval, Scores
from stilla.stages.folder import RunFolder

TEACHER_SAYS = ({"kind": "labels", "weight": 0.3}, {"kind": "logits", "weight": 0.7, "temperature": 2.0})
"""What a run of classes learns where nothing is said (docs/defaults.md)."""


@dataclass(frozen=True)
class Setting:
    """`demo`: its data, models and recipe. `seeds`: students, and baselines, of every way."""

    demo: str
    output: Path
    seeds: int

    @property
    def folder(self) -> Path:
        return self.output / self.demo

    @property
    def data(self) -> Path:
        """Where the demo's examples lie: `own/` with few labels, `unlabelled.parquet`, `teacher.parquet` with all."""
        return self.folder / "data"

    def recipe(self) -> dict[str, Any]:
        """The demo's own, with nothing exported and nothing timed."""
        plain: dict[str, Any] = json.loads(read(prepare(self.demo, self.folder), ["export=[]", "evaluate.speed=false"])
                                           .model_dump_json(exclude_unset=True))
        return plain

    def taught(self, **changes: Any) -> Run:
        """The run that trains the demo's teacher, once; its student makes a single step."""
        recipe = self.recipe()
        return run_of({**recipe, "distill": {"max_steps": 1, "precision": "float32"},
                       "evaluate": {"speed": False, "resamples": 100, **changes},
                       "output": str(self.folder / "teacher")}, [])

    @property
    def teacher(self) -> str:
        folder = RunFolder(self.folder / "teacher")
        return str(folder.teacher if folder.scores.is_file() else self.taught().folder / "teacher")

    def run(self, name: str, *, lender: Run | None = None, **changes: Any) -> Run:
        """A student that learns as the demo's does but for `changes`, and the same on labels alone.

        lender: a run whose baselines are those of this one too: the same student, labels and steps.
        """
        recipe = self.recipe()
        place = RunFolder(self.folder / name.replace(" ", "-"))
        if lender is not None:
            lend_baseline(RunFolder(lender.folder), place)
        changed = {key: {**recipe.get(key, {}), **value} if key in ("data", "evaluate") else value
                   for key, value in changes.items()}
        recipe = {**recipe, "teacher": {"model": self.teacher}, **changed}
        recipe["evaluate"] = {"speed": False, "seeds": self.seeds, "baseline": True, **changed.get("evaluate", {})}
        return run_of({**recipe, "output": str(place.path)}, [])


def seconds(run: Run, role: str = "student") -> float:
    """Of the processor, for one training: the mean over seeds."""
    found = [one["processor_seconds"] for stage, one in run.scores.spent.items() if stage.partition("-")[0] == role]
    return float(np.mean(found)) if found else float("nan")


def quality(scores: Scores, subject: str) -> str:
    return cell(scores.metric, scores.subjects[subject].quality[scores.split][scores.metric])


def cell(metric: str, found: Interval) -> str:
    return f"{numbers.quality(metric, found.value)} {numbers.interval(metric, found)}".rstrip()


def signed(found: Interval | None) -> str:
    """A difference of a bounded metric, in points."""
    if found is None:
        return numbers.MISSING
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def table(runs: Mapping[str, Run], more: Mapping[str, Iterable[str]] | None = None) -> str:
    """A line a way: labels alone, student, paired difference, every seed, seconds; `more`: further columns."""
    further = more or {}
    rows = [[name, quality(run.scores, "baseline"), quality(run.scores, "student"), signed(run.scores.difference),
             ", ".join(f"{100 * one:.1f}" for one in run.scores.student.seeds) or numbers.MISSING, *beside,
             f"{seconds(run):.1f}"]
            for (name, run), *beside in zip(runs.items(), *further.values(), strict=True)]
    return markdown(["", "labels alone", "student", "student − labels alone", "by seed", *further, "s of processor"], rows)
