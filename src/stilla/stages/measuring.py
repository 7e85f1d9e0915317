"""Predictions and costs of everything that a run made, each as a user would load it: models from their folders, exported
files through their own runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from stilla.errors import CompatibilityError, all_of
from stilla.evaluate import (
    Predictions,
    Subject,
    Workload,
    batch_for,
    compared_with_chance,
    count_flops,
    count_parameters,
    is_weak,
    make_scores,
    measure_many,
    predict,
    predict_beside,
    unused_outputs,
    workload,
)
from stilla.evaluate.texts import Author, write_texts, writing
from stilla.export.running import OnnxWriter, open_exported
from stilla.recipe import Recipe
from stilla.runtime.processes import processes
from stilla.scores import Scores
from stilla.tasks.base import Loaded, Prepared, Side, Task


def check_teacher(task: Task, teacher: Loaded, validation: Dataset, recipe: Recipe) -> None:
    """Raise unless the teacher is better than chance on the validation data.

    Raises:
        CompatibilityError: it is not; what it reached and what chance reaches.
    """
    place([teacher])
    prepared = task.prepare(validation, teacher.processor, None, training=False)
    said = predict(teacher.model, task, prepared, side=Side.STUDENT, batch_size=recipe.evaluate.batch_size,
                   title="checking the teacher")
    if is_weak(task, said, seed=recipe.seed):
        quality, chance = compared_with_chance(task, said, seed=recipe.seed)
        raise CompatibilityError(
            f"the teacher is no better than chance on the {len(said):,} validation examples: {task.metrics()[0].name} "
            f"{quality.value:.3f} (95 % interval {quality.low:.3f} to {quality.high:.3f}), chance {chance:.3f}. A wrong "
            f"label column, label order or preparation looks like this. {_way_out(recipe)}, or go on with "
            "--allow-weak-teacher")


def _way_out(recipe: Recipe) -> str:
    if recipe.teacher.train is None:
        return "Train it first (`teacher: {model: ..., train: {epochs: 3}}`)"
    return "Train it longer or with another learning rate (teacher.train), give more validation data"


def place(models: Sequence[Loaded]) -> torch.device:
    """Move models to where this process computes; what was loaded from files is on the processor."""
    device: torch.device = processes().device
    for one in models:
        one.model.to(device)
    return device


def measure(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], teacher: Loaded, made: Mapping[str, Sequence[Loaded]],
    exported: Mapping[str, Path],
) -> Scores:
    """Predictions and costs of every subject on these splits, as scores."""
    device = place([teacher, *(one for loaded in made.values() for one in loaded)])
    compared = Compared(recipe, task, teacher, made, {kind: open_exported(path) for kind, path in exported.items()}, device)
    prepared = {split: compared.prepared(examples) for split, examples in splits.items()}
    predictions: dict[str, dict[str, list[Predictions]]] = {}
    for split, examples in splits.items():
        for name, seeds in compared.answers(split, examples, prepared[split]).items():
            predictions.setdefault(name, {})[split] = seeds
    last = prepared[list(splits)[-1]]  # measured for speed: test data where there are some
    authors, unwritten = compared.authors()
    subjects = compared.subjects(last)
    timed = writing(recipe.evaluate.writing, task, splits[list(splits)[-1]],
                    {name: authors[name] for name in subjects if name in authors},
                    recipe.evaluate.batch_size) if recipe.evaluate.speed else {}
    if timed and set(timed) == set(subjects):  # forwards and texts would not compare
        subjects = {name: replace(one, writing=timed[name]) for name, one in subjects.items()}
    costs, notes = measure_many(subjects, speed=recipe.evaluate.speed)
    if timed:
        of = "writing whole texts, token by token" if set(timed) == set(subjects) else "one forward, not of writing"
        notes = (*notes, f"speed: of {of}")
    if "baseline" in made:
        costs["baseline"] = costs["student"]  # the same architecture: measuring it again would only add noise
    wrote = write_texts(recipe.evaluate.writing, task, splits, authors, recipe.evaluate.batch_size)
    notes = (*notes, *compared.notes(last), *wrote.notes, *(unwritten if wrote.texts else ()))
    return make_scores(task, splits, predictions, costs, metric=recipe.evaluate.metric, notes=notes,
                       resamples=recipe.evaluate.resamples, seed=recipe.seed, texts=wrote.texts, text_metrics=wrote.metrics)


@dataclass(frozen=True)
class Compared:
    """All that is measured together: the teacher, the models of every role by seed, exported files by format."""

    recipe: Recipe
    task: Task
    teacher: Loaded
    made: Mapping[str, Sequence[Loaded]]
    files: Mapping[str, Any]
    device: torch.device

    @property
    def student(self) -> Loaded:
        return self.made["student"][0]

    @cached_property
    def alike(self) -> bool:
        """Whether teacher and student can be compared row by row."""
        return self.task.alike(self.student.processor, self.teacher.processor)

    def prepared(self, examples: Dataset) -> Prepared:
        theirs = self.teacher.processor if self.alike else None
        return self.task.prepare(examples, self.student.processor, theirs, training=False)

    def answers(self, split: str, examples: Dataset, prepared: Prepared) -> dict[str, list[Predictions]]:
        """By subject, one per seed."""
        if not self.task.vocabulary:
            return self._one_by_one(split, examples, prepared)
        return self._beside(split, prepared) if self.alike else self._apart(split, examples)

    def subjects(self, prepared: Prepared) -> dict[str, Subject]:
        """Whose speed and size is measured, and on what."""
        student, most = self.student.model, batch_for(self.task, prepared, self.recipe.evaluate.batch_size)
        theirs, ours = (workload(prepared, side, batch_size=most, device=self.device)
                        for side in (Side.TEACHER, Side.STUDENT))
        here = workload(prepared, Side.STUDENT, batch_size=most)  # onnxruntime's, on the processor
        flops = _flops(student, ours)
        return {"teacher": Subject(self.teacher.model, theirs), "student": Subject(student, ours),
                **{kind: Subject(file, here, parameters=count_parameters(student), bytes=file.bytes, flops=flops)
                   for kind, file in self.files.items()}}

    def authors(self) -> tuple[dict[str, list[Author]], list[str]]:
        """Who is asked to write, and a note on who cannot."""
        generation = self.recipe.evaluate.writing
        authors = {"teacher": [Author(self.teacher.model, self.teacher.processor)],
                   **{role: [Author(one.model, one.processor) for one in seeds] for role, seeds in self.made.items()}}
        writing = {kind: file for kind, file in self.files.items() if isinstance(file, OnnxWriter)}
        if generation is None or generation.num_beams > 1:
            silent = f"{all_of(list(writing))}: texts are not measured through exported files with num_beams above 1"
            return authors, [silent] if writing else []
        settings: Any = self.student.model.generation_config
        return authors | {kind: [Author(file.writer(settings), self.student.processor)] for kind, file in writing.items()}, []

    def notes(self, prepared: Prepared) -> list[str]:
        """What a reader of the numbers has to know."""
        found = []
        if self.files and self.device.type != "cpu" and self.recipe.evaluate.speed:
            found.append(f"speed: {all_of(list(self.files))} on the processor, the models on {self.device}")
        if self.task.vocabulary and self.alike:
            found += unused_outputs(self.task, prepared, {"teacher": (self.teacher.model, Side.TEACHER),
                                                          "student": (self.student.model, Side.STUDENT)})
        return found

    def _one_by_one(self, split: str, examples: Dataset, prepared: Prepared) -> dict[str, list[Predictions]]:
        labels = self.task.references(examples, prepared.keys)

        def said(name: str, forward: Any, side: Side = Side.STUDENT) -> Predictions:
            return predict(forward, self.task, prepared, side=side, batch_size=self.recipe.evaluate.batch_size, labels=labels,
                           title=f"{name}, {split}")

        return {"teacher": [said("teacher", self.teacher.model, Side.TEACHER)],
                **{role: [said(role, one.model) for one in seeds] for role, seeds in self.made.items()},
                **{kind: [said(kind, file)] for kind, file in self.files.items()}}

    def _beside(self, split: str, prepared: Prepared) -> dict[str, list[Predictions]]:
        """All subjects of a task over a vocabulary at once: each is compared with the teacher's rows."""
        others: dict[str, Any] = {
            f"{role}:{seed}": one.model for role, seeds in self.made.items() for seed, one in enumerate(seeds)}
        said = predict_beside(self.teacher.model, {**others, **self.files}, self.task, prepared,
                              batch_size=self.recipe.evaluate.batch_size, title=split)
        return {"teacher": [said["teacher"]],
                **{role: [said[f"{role}:{seed}"] for seed in range(len(seeds))] for role, seeds in self.made.items()},
                **{kind: [said[kind]] for kind in self.files}}

    def _apart(self, split: str, examples: Dataset) -> dict[str, list[Predictions]]:
        """The same where the student reads other tokens than the teacher: each by its own, and nothing token by token."""
        student, own = self.student, self.task.adapted_to(self.student)

        def said(name: str, forward: Any, whose: Loaded, by: Task) -> Predictions:
            prepared = by.prepare(examples, whose.processor, None, training=False)
            return predict(forward, by, prepared, side=Side.STUDENT, batch_size=self.recipe.evaluate.batch_size,
                           title=f"{name}, {split}")

        return {"teacher": [said("teacher", self.teacher.model, self.teacher, self.task)],
                **{role: [said(role, one.model, one, own) for one in seeds] for role, seeds in self.made.items()},
                **{kind: [said(kind, file, student, own)] for kind, file in self.files.items()}}


def _flops(student: nn.Module, work: Workload) -> float | None:
    try:
        return count_flops(student, work.one)
    except Exception:  # a model that the counter cannot follow; the note is made where the student itself is counted
        return None
