"""The runs: a teacher for every case, a student for every arm and seed, and what each answers to every example, kept.

All are runs of Stilla under one folder: stopped, the same command continues; finished, it only prints the table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gap.arms import ARMS
from benchmarks.gap.cases import CASES, Case
from benchmarks.gap.data import POOL, rows_in
from benchmarks.students import run_of
from stilla import data as splits_of
from stilla import tasks
from stilla.evaluate import Asked, examine
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.tasks.answers import Metric
from stilla.tasks.base import Task
from stilla.tasks.exam import ForwardExam

JUDGED = ("validation", "test")


@dataclass(frozen=True)
class Kept:
    """What the headline metric needs of every example of a split, by split."""

    statistics: Mapping[str, NDArray[Any]]
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and where the data come from."""

    output: Path
    data: Path | None

    def folder(self, case: str) -> Path:
        return self.output / case

    def teacher(self, name: str) -> Path:
        """The case's teacher, trained once, by a run whose student makes a single step."""
        case, folder = CASES[name], self.folder(name)
        if not (folder / "data" / "test.parquet").is_file():
            case.prepare(self.data, folder / "data")
        made = folder / "teacher"
        if not (made / "student" / "config.json").is_file():
            source = {"model": str(case.start(folder / "data")), "train": dict(case.teacher)}
            run_of({**self.base(name, case), "teacher": source, "distill": {"max_steps": 1}, "output": str(made),
                    **({"student": {"layers": 1}} if is_limited(case) else {})}, [])
        return made / "teacher"

    def chosen(self, name: str) -> dict[str, Any]:
        """The student that all arms of the case teach: where it only has a limit, what a run that says nothing chooses."""
        case = CASES[name]
        if not is_limited(case):
            return dict(case.student)
        file = self.folder(name) / "default" / "0" / "run" / "plan" / "plan.json"
        if not file.is_file():
            self.student(name, "default", 0)
        chosen: dict[str, Any] = json.loads(file.read_text())["chosen"]
        return chosen

    def begun(self, name: str) -> Path:
        """The student that all arms of the case start from, as a folder: of a run whose single step moves nothing."""
        run = run_of({**self.base(name, CASES[name]), "teacher": {"model": str(self.teacher(name))},
                      "student": self.chosen(name), "distill": {"max_steps": 1, "learning_rate": 1e-12},
                      "output": str(self.folder(name) / "begun")}, [])
        return run.student

    def student(self, name: str, arm: str, seed: int) -> Kept:
        """A student of the case, taught in one way; made, continued or found."""
        case, teacher = CASES[name], self.teacher(name)
        place = self.folder(name) / arm.replace(", ", "-").replace(" ", "-") / str(seed)

        def train() -> tuple[Path, float]:
            base = self.base(name, case)
            if arm != "default" or seed:
                base["student"] = self.chosen(name)
            folder = self.folder(name) / "data"
            pool = self.folder(name) / POOL
            said = ARMS[arm].recipe(rows_in(folder / "train.parquet"), pool, rows_in(pool / "texts.parquet"))
            recipe = {**base, "teacher": {"model": str(teacher)}, "seed": seed, "output": str(place / "run"),
                      **{key: {**base.get(key, {}), **value} for key, value in said.items()}}
            run = run_of(recipe, [])
            return run.student, seconds_of(run.folder)

        return self.kept(place / "kept.npz", name, train)

    def judged(self, name: str, model: Path) -> Kept:
        """Another model of the case: the teacher."""
        return self.kept(self.folder(name) / "teacher" / "kept.npz", name, lambda: (model, 0.0))

    def kept(self, file: Path, name: str, made: Callable[[], tuple[Path, float]]) -> Kept:
        """What a model of the case answers, by `file` where it is there; else of what `made` gives, with its seconds."""
        if not file.is_file():
            self._keep(file, name, *made())
        return _read(file)

    def base(self, name: str, case: Case) -> dict[str, Any]:
        folder = self.folder(name) / "data"
        return {"task": case.task, "data": {"train": str(folder), **case.data}, "student": dict(case.student),
                "evaluate": {"speed": False, "resamples": 100, **case.evaluate}}

    def _keep(self, file: Path, name: str, model: Path, seconds: float) -> None:
        recipe = from_options({**self.base(name, CASES[name]), "teacher": {"model": str(model)}})
        splits = splits_of.load(recipe.data, seed=0)
        task = tasks.find(recipe.task).understand(recipe.data, splits)
        loaded = task.load(ModelSource(model=str(model)), labelled=True)
        task = task.adapted_to(loaded)
        exam = _exam(task)
        found: dict[str, Any] = {}
        for split in JUDGED:
            prepared = task.prepare(splits[split], loaded.processor, None, training=False)
            answers = examine(exam, {"student": Asked(loaded.model)}, prepared, batch_size=64)["student"]
            found[split] = np.asarray(exam.metrics()[0].statistics(answers.given, answers.references))
        parameters = sum(one.numel() for one in loaded.model.parameters())
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **found, seconds=seconds, parameters=parameters)
        os.replace(part, file)


def is_limited(case: Case) -> bool:
    return "size" in case.student


def metric_of(bench: Bench, name: str) -> Metric:
    """The headline metric of the case."""
    recipe = from_options({**bench.base(name, CASES[name]), "teacher": {"model": str(bench.teacher(name))}})
    task = tasks.find(recipe.task).understand(recipe.data, splits_of.load(recipe.data, seed=0))
    return _exam(task).metrics()[0]


def _exam(task: Task) -> ForwardExam:
    """By which models are compared whose tokens may be others."""
    return task.apart() or task.exam()


def _read(file: Path) -> Kept:
    with np.load(file) as kept:
        return Kept({split: kept[split] for split in JUDGED}, float(kept["seconds"]), int(kept["parameters"]))


def seconds_of(folder: Path) -> float:
    """Of the student's training, by the processor's clock, which other work does not stop."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return max((entry["processor_seconds"] for entry in entries
                if entry.get("stage") == "student" and "processor_seconds" in entry), default=0.0)
