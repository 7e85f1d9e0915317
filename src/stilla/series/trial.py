"""One trial: a student is trained in a run folder of its own, and measured on validation data alone."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from stilla.recipe import Recipe
from stilla.run import with_student, with_teacher
from stilla.series.answers import with_shared_cache
from stilla.series.trials import Reached
from stilla.stages.compared import VALIDATION
from stilla.stages.folder import RunFolder
from stilla.stages.measuring import measure
from stilla.stages.progress import still_growing
from stilla.stages.stages import Stages
from stilla.stages.starting import saved_student


def tried(recipe: Recipe, folder: RunFolder, shared: Path, best: Reached | None = None) -> Reached:
    """What a recipe's student reaches on validation data.

    `folder`: open, and with a shelf for what other trials make too. `shared`: where caches lie. `best`: of the trials before;
    where finished students of the first seeds lie behind it beyond noise, no further ones are trained.

    Raises:
        StillaError: the trial cannot be made.
        Interrupted: stopped; the same again goes on.
    """
    started = time.monotonic()
    stages = _blind(with_teacher(recipe, folder)).resolved(of_many=True).chosen()
    written = stages.completions()
    stages = with_shared_cache(with_student(stages, written), shared)
    cut = stages.narrowed(written)
    for seed in range(recipe.evaluate.seeds):
        stages.student("student", seed, written, cut)
        left = recipe.evaluate.seeds - seed - 1
        if not left or best is not None:
            reached = _measured(stages, seed + 1, left, time.monotonic() - started)
            if best is not None and reached.is_behind(best):
                break
    return reached


def drop_weights(folder: RunFolder) -> None:
    """Of a trial that is not the best: what it reached and how stays."""
    for made in (folder.student, folder.path / "seeds", folder.path / "stages", folder.teacher):
        shutil.rmtree(made, ignore_errors=True)


def _blind(stages: Stages) -> Stages:
    """Without test data, and those from elsewhere: what is chosen by them could not be measured on them any more."""
    seen = {name: split for name, split in stages.place.splits.items() if name in ("train", VALIDATION, "teacher")}
    return replace(stages, place=replace(stages.place, splits=seen))


def _measured(stages: Stages, seeds: int, left: int, seconds: float) -> Reached:
    """By the mean of so many seeds."""
    recipe, place = stages.recipe, stages.place
    made = [saved_student(recipe, place.folder, place.task, "student", seed) for seed in range(seeds)]
    scores = measure(recipe, place.task, {VALIDATION: place.splits[VALIDATION]}, stages.teacher, {"student": made}, {})
    student, metric = scores.student, scores.metric
    teacher = scores.teacher[metric] if "teacher" in scores.subjects else None
    return Reached(metric, scores.higher_is_better, student.quality[VALIDATION][metric], teacher,
                   None if scores.retention is None else scores.retention.value, student.cost.parameters or 0,
                   round(seconds, 1), recipe.cache.model_dump(mode="json"), student.seeds,
                   dict(still_growing(place.folder.log)), left)

