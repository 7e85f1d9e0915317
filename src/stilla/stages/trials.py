"""A short training of a student that may be taken, and what it reached: by which one of several is chosen."""

from __future__ import annotations

import shutil

from stilla.data import from_all_over
from stilla.objectives import term
from stilla.recipe import Stage, StudentSpec
from stilla.runtime.processes import on_main
from stilla.stages.completions import Completed
from stilla.stages.effort import at_once
from stilla.stages.stages import Stages
from stilla.tasks.base import Task
from stilla.training.arguments import precision_of
from stilla.training.validation import KL, Validation, measures

PART, SHORTEST, LONGEST = 0.1, 50, 300
"""Of the training's steps that a candidate is trained for, and at least and at most so many."""
JUDGED = 1_000
"""Examples of the validation data by which candidates are compared."""


def judged_by(stages: Stages) -> str:
    """The name of what candidates are compared by: the divergence from the teacher, or the task's own measure."""
    task, processor = stages.place.task, stages.teacher.processor
    if task.row_classes() > 1 and task.comparable(processor, processor):
        return KL
    return next(iter(measures(task, taught=True)))


def is_better_higher(task: Task, by: str) -> bool:
    return by != KL and measures(task, taught=False)[by]


def steps_of(stage: Stage, examples: float) -> int:
    """For how many steps a candidate is trained."""
    whole = stage.max_steps or stage.passes * examples / at_once(stage)
    return int(max(min(SHORTEST, whole), min(LONGEST, PART * whole)))


def reached(stages: Stages, written: Completed | None, spec: StudentSpec, name: str, steps: int, by: str) -> float:
    """What such a student reaches by the recipe's first stage, cut to these steps; nothing of it is kept."""
    alone = {"patience": None, "extend": None, "average": None, "profile": None}
    stage = stages.recipe.distill[0].model_copy(update={"max_steps": steps, **alone})
    there = stages.with_recipe(stages.recipe.model_copy(update={"student": spec}))
    student, loaded = there.start(0, written, there.measured(written))
    place, teacher = there.place_of(loaded), stages.teacher
    terms = [term(each) for each in stage.objectives or ()]
    # what a stopped run left may be of another recipe
    on_main(lambda: shutil.rmtree(place.folder.checkpoints(name), ignore_errors=True))
    place.train(name, student, teacher.model, terms, stage, (loaded.processor, teacher.processor), stages.recipe.seed,
                examples=stages.examples(written))
    shutil.rmtree(place.folder.checkpoints(name), ignore_errors=True)
    some = from_all_over(place.splits["validation"], JUDGED)
    prepared = place.task.prepare(some, loaded.processor, teacher.processor, training=False)
    found = Validation(place.task, [prepared], teacher.model if by == KL else None).measured(
        student.model, prepared, precision=precision_of(stage), batch_size=stages.recipe.evaluate.batch_size,
        device=next(student.model.parameters()).device, together=False)
    return found[by]
