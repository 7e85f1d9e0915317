"""Answers and costs of everything that a run made, each as a user would load it: models from their folders, exported
files through their own runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset

from stilla.errors import CompatibilityError, counted
from stilla.evaluate import (
    Asked,
    Examined,
    Slice,
    compared_with_chance,
    count_parameters,
    count_tokens,
    examine,
    headline_split,
    is_weak,
    make_scores,
    measure_many,
    slices_of,
    stored_bytes,
)
from stilla.evaluate.texts import write_texts, writing
from stilla.export.running import open_exported
from stilla.recipe import Recipe
from stilla.runtime.processes import processes
from stilla.scores import PERSONAL, Cost, Scores
from stilla.stages.compared import CHOSEN_ON, VALIDATION, Compared
from stilla.stages.groups import Parts, grouped
from stilla.stages.words import narrowed
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.exam import ForwardExam, by_task
from stilla.tasks.language.writing import WrittenExam


def check_teacher(task: Task, teacher: Loaded, validation: Dataset, recipe: Recipe) -> None:
    """Raise unless the teacher is better than chance on the validation data.

    Raises:
        CompatibilityError: it is not; what it reached and what chance reaches.
    """
    place([teacher])
    prepared = task.of_teacher().prepare(validation, teacher.processor, None, training=False)
    exam = task.exam()
    said = examine(exam, {"teacher": Asked(teacher.model)}, prepared, batch_size=recipe.evaluate.batch_size,
                   title="checking the teacher")["teacher"]
    for name, (own, answers) in by_task(exam, said).items():
        if is_weak(own, answers, seed=recipe.seed):
            quality, chance = compared_with_chance(own, answers, seed=recipe.seed)
            whose = f"the teacher of {name}" if name else "the teacher"
            raise CompatibilityError(
                f"{whose} is no better than chance on the {len(answers):,} validation examples: {own.metrics()[0].name} "
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
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], teacher: Loaded | None, made: Mapping[str, Sequence[Loaded]],
    exported: Mapping[str, Path], *, parts: Sequence[Parts] = (), notes: Sequence[str] = (),
    validation: Dataset | None = None, own: bool = True,
) -> Scores:
    """Answers and costs of every subject on these splits, as scores. `teacher`: None where there is no model here.
    `parts`: of the student of every seed, for groups of examples. `notes`: to be kept with them. `own`: whether these are the
    run's own splits, on whose validation data models choose (a threshold); else they choose on `validation`, or nothing."""
    slices = sliced_by(recipe, splits)
    device = place([*([] if teacher is None else [teacher]), *(one for loaded in made.values() for one in loaded)])
    unmeasured = None if teacher is None else task.unmeasured(teacher)
    compared = Compared(recipe, task, teacher if unmeasured is None else None, made,
                        {kind: open_exported(path, task) for kind, path in exported.items()}, device, parts,
                        VALIDATION if own else None if validation is None else CHOSEN_ON)
    asked = splits if validation is None else {**splits, CHOSEN_ON: validation}
    prepared = {split: compared.prepared(examples) for split, examples in asked.items()}
    timed = headline_split(list(splits))
    costs, said = _costs(compared, splits[timed], prepared[timed])
    if teacher is not None and unmeasured is not None:
        parameters = count_parameters(teacher.model)
        costs["teacher"] = Cost(parameters, stored_bytes(teacher.model), tokens=count_tokens(teacher.model))
        said.append(f"teacher: {counted(parameters, 'parameter')}; not measured beside its student, as {unmeasured}")
    elif "teacher" not in costs:
        costs["teacher"] = Cost()
        said.append("teacher: known by what it has said alone; its time, memory and energy are not known here")
    said = [*notes, *said]
    if recipe.student.width is not None and teacher is not None:
        origin = task.pattern(teacher).model
        said.append(f"student: narrower, {narrowed(recipe.student.width, origin, compared.student.model)}")
    examined = []
    for exam in compared.exams:
        if isinstance(exam, WrittenExam):
            wrote = write_texts(exam, splits, compared.authors(), recipe.evaluate.batch_size)
            examined.append(Examined(exam, wrote.answers))
            said += [*wrote.notes, *compared.silent()]
        elif isinstance(exam, ForwardExam):
            examined += [one.on(splits) for one in compared.examined(exam, asked, prepared)]
            said += compared.remarks(prepared[timed])
    said += compared.vocabulary(timed, splits[timed])
    costs |= compared.simple
    grouping = None
    if parts:
        grouping = grouped(parts[0], compared.student.model, splits[timed])
        costs[PERSONAL] = grouping.beside(costs["student"])
    return make_scores(task.kind, splits, examined, costs, metric=recipe.evaluate.metric, slices=slices, notes=said,
                       resamples=recipe.evaluate.resamples, seed=recipe.seed, grouping=grouping)


def sliced_by(recipe: Recipe, splits: Mapping[str, Dataset]) -> tuple[Slice, ...]:
    """The slices of the headline split that a recipe asks for.

    Raises:
        DataError: columns that are not there, or that tell no groups apart.
    """
    return slices_of(splits[headline_split(list(splits))], recipe.evaluate.slices)


def _costs(compared: Compared, examples: Dataset, prepared: Prepared) -> tuple[dict[str, Cost], list[str]]:
    """Of every subject; models that write are timed on whole texts, if all that are measured write."""
    evaluate = compared.recipe.evaluate
    subjects, timed = compared.subjects(examples, prepared), {}
    written = next((exam for exam in compared.exams if isinstance(exam, WrittenExam)), None)
    if written is not None and evaluate.speed:
        authors = {name: seeds for name, seeds in compared.authors().items() if name in subjects}
        timed = writing(written, examples, authors, evaluate.batch_size)
    whole = set(timed) == set(subjects)  # forwards and texts would not compare
    if timed and whole:
        subjects = {name: replace(one, writing=timed[name]) for name, one in subjects.items()}
    costs, notes = measure_many(subjects, speed=evaluate.speed, watts=evaluate.watts)
    if timed:
        notes = (*notes, f"speed: of {'writing whole texts, token by token' if whole else 'one forward, not of writing'}")
    if "baseline" in compared.made:
        costs["baseline"] = costs["student"]  # the same architecture: measuring it again would only add noise
    return costs, [*notes, *compared.elsewhere()]
