"""The same training without the teacher: the stages of a student on labels alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from datasets import Dataset

from stilla.recipe import ObjectiveSpec, Stage
from stilla.recipe.section import STEPS
from stilla.runtime.processes import on_main
from stilla.stages import cache_choice, learnt
from stilla.stages.completions import Completed
from stilla.stages.place import Place
from stilla.training.spreading import launched_to_spread
from stilla.training.validation import KL

LABELS = ObjectiveSpec(kind="labels")
KEPT = {"save_strategy", "save_steps", "fsdp", "deepspeed"}
"""Fields of Trainer that settle what is saved while something is trained, beside those of its evaluations."""


def baselines(place: Place, written: Completed | None, examples: Dataset) -> tuple[Stage, ...]:
    """The stages on labels alone, for as many steps as the student, of whose texts some were left out, or which has
    `examples` that nobody has labelled."""
    recipe = place.recipe
    stages, labelled = recipe.distill, len(place.splits["train"])
    passes = [cache_choice.passes_of(stage, len(examples)) for stage in stages]  # that the student makes
    alone = partial(labels_alone, by=place.task.labels_by())
    if recipe.teacher.api is None and place.pool is None:
        return tuple(alone(stage, written.share if written else 1.0, best=one * len(examples) > labelled)
                     for stage, one in zip(stages, passes, strict=True))
    share = len(examples) / labelled
    done: Sequence[Any] = [None] * len(stages)
    if recipe.teacher.api is None:
        done = on_main(lambda: learnt.of(place.folder, recipe))
    # what may end early or go on ends by itself: a student's steps are no measure for its baseline
    ends = [one is None or stage.patience is not None or stage.extend is not None
            for stage, one in zip(stages, done, strict=True)]
    return tuple(alone(stage, share, None if by_itself or one is None else one["steps"], passes=each, best=each > 1)
                 for stage, one, by_itself, each in zip(stages, done, ends, passes, strict=True))


def labels_alone(
    stage: Stage, share: float = 1.0, steps: int | None = None, *, by: ObjectiveSpec = LABELS, passes: float | None = None,
    best: bool = True,
) -> Stage:
    """The same training without the teacher: the baseline's.

    Args:
        share: how many examples the student trains on, against the labelled ones, over which the baseline passes for as many
            steps.
        steps: of the student's training, where they are known.
        by: what learns from labels (`Task.labels_by`).
        passes: that the student makes, where the baseline's are more and shorter: it is evaluated as often as the student.
        best: whether it keeps the weights of the evaluation that was best by the task's first metric, where the recipe does
            not say what is kept: labels alone are learnt by heart long before a teacher's answers are.

    Where the student goes by its teacher, the baseline goes by that metric.
    """
    own = {"eval_strategy", "eval_steps", "load_best_model_at_end"} & set(stage.trainer)
    again: dict[str, Any] = {}
    # of a single pass the end alone is measured; a fraction of 1 would be every step
    if passes is not None and not own and stage.extend is None:
        again = {"eval_strategy": "steps", "eval_steps": 1 / math.ceil(passes) if passes > 1 else STEPS}
    said = own or stage.average is not None or KEPT & set(stage.trainer)
    if best and not said and not launched_to_spread():
        again["load_best_model_at_end"] = True
    trainer = {name: value for name, value in stage.trainer.items()
               if name != "metric_for_best_model" or str(value).removeprefix("eval_") != KL}
    return stage.model_copy(update={
        "objectives": (by,), "epochs": stage.passes * share * (1 - (stage.adapt.quiz if stage.adapt else 0)),
        "adapt": None, "unlabelled": None,
        "max_steps": stage.max_steps if steps is None else steps, "trainer": {**trainer, **again}, "pull": None,
        "hardest": None})
