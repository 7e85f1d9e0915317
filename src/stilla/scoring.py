"""Measuring what a run made: every model from its files, every exported file from itself, all into `scores.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from stilla import data
from stilla.carding import card
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
from stilla.evaluate.texts import Author, write_texts
from stilla.export import export, main_file
from stilla.export.running import OnnxWriter, open_exported
from stilla.fingerprints import of_model
from stilla.narrate import say
from stilla.processes import processes
from stilla.recipe import ModelSource, Recipe
from stilla.run_folder import RunFolder
from stilla.scores import Scores
from stilla.starting import trained
from stilla.tasks.base import Loaded, Prepared, Side, Task

MEASURED = ("validation", "test")


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
            f"the teacher is no better than chance on the validation data: {task.metrics()[0].name} {quality.value:.3f} "
            f"(95 % interval {quality.low:.3f} to {quality.high:.3f}), chance {chance:.3f}. A wrong label column, label "
            "order or preparation looks like this. Train it first (`teacher: {model: ..., train: {epochs: 3}}`), or go "
            "on with --allow-weak-teacher")


def export_all(recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset]) -> dict[str, Path]:
    """Every format that the recipe asks for, written from the student's files; and those that `stilla export` wrote."""
    return {**{kind: export_one(kind, recipe, folder, task, splits) for kind in recipe.export},
            **{kind: file for kind, file in exports_of(folder).items() if kind not in recipe.export}}


def exports_of(folder: RunFolder) -> dict[str, Path]:
    """The main file of every format that the run has."""
    made = {path.name: main_file(path) for path in sorted(folder.exports.glob("*")) if path.is_dir()}
    return {kind: file for kind, file in made.items() if file is not None}


def export_one(kind: str, recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset]) -> Path:
    """One format, skipped if it was written from the same weights; the exported model file."""
    student = saved_student(recipe, folder, task, "student", 0)
    inputs = {"student": of_model(student.model), "format": kind}
    stage, target = f"export-{kind}", folder.exports / kind
    if not (folder.fits(stage, inputs) and main_file(target) is not None):
        examples = splits["train"]
        # spread over the whole split: its first examples may all be of one class
        chosen = sorted({len(examples) * number // CALIBRATION for number in range(CALIBRATION)})
        prepared = task.prepare(examples.select(chosen), student.processor, None, training=False)
        folder.begin(stage, inputs)
        export(kind, student.model, student.processor, task, prepared, target)
        folder.finish(stage, inputs)
        say(f"{kind}: written to {target}")
    made = main_file(target)
    assert made is not None  # `export` has just written it, or it was there
    return made


CALIBRATION = 256
"""Training examples that quantisation may look at."""


def saved_student(recipe: Recipe, folder: RunFolder, task: Task, role: str, seed: int) -> Loaded:
    """Student or baseline of the n-th seed as a user would load it: from its files."""
    spec, path = recipe.student, folder.model(role, seed)
    made = spec.model or recipe.teacher.model
    source = trained(ModelSource(model=made, processor=spec.processor or recipe.teacher.processor,
                                 trust_remote_code=spec.trust_remote_code or recipe.teacher.trust_remote_code), path)
    return task.load(source, labelled=True)


def score(
    recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset], teacher: Loaded,
    exported: Mapping[str, Path], *, again: bool = False,
) -> Scores:
    """Measure teacher, student, baseline and exported files on validation and test data, and write the scores.

    `again`: also where nothing has changed. The old scores stay until there are new ones.
    """
    roles = ["student", *(["baseline"] if recipe.evaluate.baseline else [])]
    seeds = range(recipe.evaluate.seeds)
    made = {role: [saved_student(recipe, folder, task, role, seed) for seed in seeds] for role in roles}
    measured = {split: splits[split] for split in MEASURED if split in splits}
    inputs = {"teacher": of_model(teacher.model), "evaluate": recipe.evaluate.model_dump(mode="json"), "seed": recipe.seed,
              "exports": {kind: path.stat().st_mtime_ns for kind, path in exported.items()},
              "data": data.fingerprint(measured),
              **{role: [of_model(one.model) for one in models] for role, models in made.items()}}
    if not again and folder.fits("scores", inputs) and folder.scores.exists():
        say("scores: measured before, skipped")
        return Scores.load(folder.scores)
    scores = measure(recipe, task, measured, teacher, made, exported)
    scores.dump(folder.scores)
    student = made["student"][0]
    card(recipe, folder, scores, student, plain=not isinstance(student.model, PreTrainedModel))
    folder.finish("scores", inputs)
    return scores


def _flops(student: Loaded, work: Workload) -> float | None:
    try:
        return count_flops(student.model, work.one)
    except Exception:  # a model that the counter cannot follow; the note is made where the student itself is counted
        return None


def _beside(
    task: Task, prepared: Prepared, teacher: Loaded, models: Mapping[str, Sequence[nn.Module]],
    files: Mapping[str, Any], size: int, split: str,
) -> dict[str, list[Predictions]]:
    """All subjects of a task over a vocabulary at once, by name, one per seed: each compared with the teacher's rows."""
    others: dict[str, Any] = {f"{role}:{seed}": model for role, seeds in models.items() for seed, model in enumerate(seeds)}
    said = predict_beside(teacher.model, {**others, **files}, task, prepared, batch_size=size, title=split)
    return {"teacher": [said["teacher"]],
            **{role: [said[f"{role}:{seed}"] for seed in range(len(seeds))] for role, seeds in models.items()},
            **{kind: [said[kind]] for kind in files}}


def _apart(
    task: Task, examples: Dataset, teacher: Loaded, made: Mapping[str, Sequence[Loaded]], files: Mapping[str, Any], size: int,
    split: str,
) -> dict[str, list[Predictions]]:
    """The same where the student reads other tokens than the teacher: each by its own, and nothing token by token."""
    student = made["student"][0]
    own = task.adapted_to(student)

    def said(name: str, forward: Any, whose: Loaded, by: Task) -> Predictions:
        prepared = by.prepare(examples, whose.processor, None, training=False)
        return predict(forward, by, prepared, side=Side.STUDENT, batch_size=size, title=f"{name}, {split}")

    return {"teacher": [said("teacher", teacher.model, teacher, task)],
            **{role: [said(role, one.model, one, own) for one in seeds] for role, seeds in made.items()},
            **{kind: [said(kind, file, student, own)] for kind, file in files.items()}}


def _authors(
    recipe: Recipe, teacher: Loaded, made: Mapping[str, Sequence[Loaded]], files: Mapping[str, Any]
) -> tuple[dict[str, list[Author]], list[str]]:
    """Who is asked to write, and a note on who cannot."""
    student, generation = made["student"][0], recipe.evaluate.generation
    authors = {"teacher": [Author(teacher.model, teacher.processor)],
               **{role: [Author(one.model, one.processor) for one in seeds] for role, seeds in made.items()}}
    writing = {kind: file for kind, file in files.items() if isinstance(file, OnnxWriter)}
    if generation is None or generation.num_beams > 1:
        named = all_of(list(writing))
        return authors, [f"{named}: texts are not measured through exported files with num_beams above 1"] if writing else []
    settings: Any = student.model.generation_config
    return authors | {kind: [Author(file.writer(settings), student.processor)] for kind, file in writing.items()}, []


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
    student = made["student"][0]
    files: dict[str, Any] = {kind: open_exported(path) for kind, path in exported.items()}
    size = recipe.evaluate.batch_size
    device = place([teacher, *(one for loaded in made.values() for one in loaded)])
    predictions: dict[str, dict[str, list[Predictions]]] = {}
    subjects: dict[str, Subject] = {}
    for split, examples in splits.items():
        alike = task.alike(student.processor, teacher.processor)
        prepared = task.prepare(examples, student.processor, teacher.processor if alike else None, training=False)
        labels = task.references(examples, prepared.keys)

        def said(name: str, forward: Any, side: Side = Side.STUDENT) -> Predictions:
            return predict(forward, task, prepared, side=side, batch_size=size, labels=labels, title=f"{name}, {split}")  # noqa: B023

        models = {role: [one.model for one in loaded] for role, loaded in made.items()}
        if task.vocabulary:
            every = (_beside(task, prepared, teacher, models, files, size, split) if alike else
                     _apart(task, examples, teacher, made, files, size, split))
            for name, seeds in every.items():
                predictions.setdefault(name, {})[split] = seeds
        else:
            predictions.setdefault("teacher", {})[split] = [said("teacher", teacher.model, Side.TEACHER)]
            for role in models:
                predictions.setdefault(role, {})[split] = [said(role, model) for model in models[role]]
            for kind, file in files.items():
                predictions.setdefault(kind, {})[split] = [said(kind, file)]
        # the last split is measured for speed: test where there is one
        most = batch_for(task, prepared, size)
        theirs, ours = (workload(prepared, side, batch_size=most, device=device) for side in (Side.TEACHER, Side.STUDENT))
        subjects = {"teacher": Subject(teacher.model, theirs), "student": Subject(student.model, ours)}
        flops = _flops(student, ours)
        here = workload(prepared, Side.STUDENT, batch_size=most)  # onnxruntime's, on the processor
        for kind, file in files.items():
            subjects[kind] = Subject(file, here, parameters=count_parameters(student.model), bytes=file.bytes, flops=flops)
    costs, notes = measure_many(subjects, speed=recipe.evaluate.speed)
    if files and device.type != "cpu" and recipe.evaluate.speed:
        notes = (*notes, f"speed: {all_of(list(files))} on the processor, the models on {device}")
    authors, unwritten = _authors(recipe, teacher, made, files)
    wrote = write_texts(recipe.evaluate.generation, task, splits, authors, size)
    notes = (*notes, *wrote.notes, *(unwritten if wrote.texts else ()))
    if task.vocabulary and alike:
        notes = (*notes, *unused_outputs(task, prepared, {"teacher": (teacher.model, Side.TEACHER),
                                                          "student": (student.model, Side.STUDENT)}))
    if "baseline" in made:
        costs["baseline"] = costs["student"]  # the same architecture: measuring it again would only add noise
    return make_scores(task, splits, predictions, costs, metric=recipe.evaluate.metric, notes=notes,
                       resamples=recipe.evaluate.resamples, seed=recipe.seed, texts=wrote.texts, text_metrics=wrote.metrics)
