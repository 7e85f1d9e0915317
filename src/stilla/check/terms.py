"""Objectives against data and models: what is wrong with them, in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stilla import objectives
from stilla.check import places
from stilla.check.found import Found
from stilla.errors import CompatibilityError
from stilla.objectives.base import OF_LABELS, Objective, Term
from stilla.objectives.saliency import Saliency
from stilla.recipe import ObjectiveSpec, Recipe
from stilla.signals import Batch, Dims
from stilla.stages.defaults import are_labelled
from stilla.students import Student
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.training.arguments import problems as training_problems
from stilla.training.plain import dims_of
from stilla.training.pulling import Anchored


def wrong_terms(recipe: Recipe) -> list[str]:
    """What is wrong with trainings and objectives by themselves."""
    return [*(problem for place, training in places.trainings(recipe) for problem in training_problems(training, place)),
            *(problem for number, stage in enumerate(recipe.distill)
              for problem in _doubled(places.stage_place(recipe, number), stage.objectives or ())),
            *(f"{place}.{problem}" for place, spec in places.objectives(recipe) for problem in _wrong_options(spec))]


def needs_the_teacher(recipe: Recipe, chosen: tuple[ObjectiveSpec, ...]) -> bool:
    """Whether both models answer the same batches: not where the student only learns what the teacher has written."""
    named = [spec for stage in recipe.distill for spec in stage.objectives or chosen if is_usable(spec)]
    if recipe.teacher.api is not None:
        return recipe.teacher.api.logprobs is not None
    return not recipe.all_written or any(objectives.term(spec).objective.needs_teacher for spec in named)


def fit(
    recipe: Recipe,
    chosen: tuple[ObjectiveSpec, ...],
    task: Task,
    teacher: Loaded,
    student: Student,
    prepared: Prepared,
    found: Found,
) -> None:
    """Every objective against both models. `chosen`: for stages that name none."""
    named = [spec for stage in recipe.distill for spec in stage.objectives or chosen]
    stacks = any(term.objective.needs_stacks for spec in named for term in _terms(spec, task)[0])
    batch = prepared.collate([prepared.examples[0]]) if stacks else None
    dims = (
        dims_of(student.model, task, batch.student if batch else None),
        dims_of(teacher.model, task, batch.teacher if batch else None),
    )
    if recipe.evaluate.saliency is not None and recipe.data.each:
        found.problems.append("evaluate.saliency: what answers rest on is measured of one task, and several are learnt here "
                              "at once; leave it out")
    elif recipe.evaluate.saliency is not None:
        found.problems += [f"evaluate.saliency: {problem}" for problem in
                           _misfits_of(Saliency(), task, dims, student, prepared, labelled=True)]
    labelled, anchored = are_labelled(recipe, task), Anchored(student, teacher.model, prepared.aligned)
    for number, stage in enumerate(recipe.distill):
        stage_place = places.stage_place(recipe, number)
        place = f"{stage_place}.objectives"
        with found.attempt(stage_place):
            anchored.of_pull(stage.pull)
        if stage.objectives is None:
            listed = ", ".join(f"{spec.part + ': ' if spec.part else ''}{spec.kind} × {spec.weight(0):g}" for spec in chosen)
            found.notes.append(f"{place}: none are named; chosen: {listed}")
        if all(is_usable(spec) for spec in stage.objectives or chosen):
            found.problems += [f"{place}: {problem}" for problem in task.idle([objectives.term(spec) for spec in
                                                                              stage.objectives or chosen])]
        for index, spec in enumerate(stage.objectives or chosen):
            misfits = _misfits(spec, task, dims, student, prepared, labelled=labelled) or _apart(spec, task, anchored)
            found.problems += [f"{place}[{index}] ({spec.kind}): {problem}" for problem in misfits]
    for index, spec in enumerate((recipe.personal.objectives if recipe.personal is not None else None) or ()):
        misfits = _misfits(spec, task, dims, student, prepared, labelled=labelled)
        found.problems += [f"personal.objectives[{index}] ({spec.kind}): {problem}" for problem in misfits]


def _apart(spec: ObjectiveSpec, task: Task, anchored: Anchored) -> list[str]:
    """Why an objective that compares weights finds none to compare."""
    try:
        anchored.of_terms(_terms(spec, task)[0])
    except CompatibilityError as error:
        return list(error.problems)
    return []


def _misfits(
    spec: ObjectiveSpec, task: Task, dims: tuple[Dims, Dims], student: Student, prepared: Prepared, *, labelled: bool
) -> list[str]:
    """Why an objective cannot work on these models; nothing where its options are wrong, which is said elsewhere."""
    terms, wrong = _terms(spec, task)
    return wrong or [problem for term in terms
                     for problem in _misfits_of(term.objective, task, dims, student, prepared, labelled=labelled)]


def _terms(spec: ObjectiveSpec, task: Task) -> tuple[tuple[Term, ...], list[str]]:
    """An objective as the task has it, of several tasks one for each; or why there is none for it, in words. Neither where
    its options are wrong, which is said elsewhere."""
    if not is_usable(spec):
        return (), []
    try:
        return task.terms([objectives.term(spec)]), []
    except CompatibilityError as error:
        return (), list(error.problems)


def _misfits_of(
    objective: Objective, task: Task, dims: tuple[Dims, Dims], student: Student, prepared: Prepared, *, labelled: bool
) -> list[str]:
    if (objective.count in OF_LABELS or not objective.needs_teacher) and not labelled:
        lacking = "there are no labelled training data (data.train)" if task.has_labels else \
            "these data say of no example what is right"
        return [f"learns from labels, and {lacking}; leave it out"]
    first = prepared.collate([prepared.examples[0]])
    counts = task.counts(first)
    if objective.count == "labelled" and first.labels is None and not counts["labelled"]:
        return ["learns from labels, and no training example has one: all are mixed with others (mixup and cutmix of "
                "data.augment are 1 together), of which only the teacher says what they are. Leave it out, or mix fewer"]
    wrong = objective.unmade(dims[0]) or objective.problems(*dims, student.layer_map)
    return wrong or [*objective.uncounted(task.counted), *objective.unseen(vocabulary=task.vocabulary),
                     *objective.unplaced(places=task.places), *objective.unpaired(pairs=task.pairs),
                     *objective.unpictured(pictures=task.pictures),
                     *objective.misfits(aligned=prepared.aligned, packed=prepared.packed, framed=prepared.framed),
                     *(_unattributed(task, first, dims[1]) if objective.needs_inputs and not task.vocabulary else [])]


def _unattributed(task: Task, first: Batch, teacher: Dims) -> list[str]:
    """Why it cannot be asked what these answers rest on."""
    try:
        task.attributed(torch.zeros(task.counts(first)["rows"], teacher.classes), first)
    except CompatibilityError as error:
        return list(error.problems)
    return []


def _doubled(place: str, specs: Sequence[ObjectiveSpec]) -> list[str]:
    names = [objectives.term(spec).name for spec in specs if is_usable(spec)]
    return [f"{place}.objectives: two are called {name!r}; give one a `name`"
            for name in dict.fromkeys(names) if names.count(name) > 1]


def _wrong_options(spec: ObjectiveSpec) -> list[str]:
    """What is wrong with an objective's options; nothing where its kind is unknown, which is said elsewhere."""
    return objectives.problems(spec) if _is_known(spec) else []


def is_usable(spec: ObjectiveSpec) -> bool:
    return _is_known(spec) and not _wrong_options(spec)


def _is_known(spec: ObjectiveSpec) -> bool:
    return spec.kind in objectives.KINDS or ":" in spec.kind
