"""The straight line: from a recipe to a deployed student with honest numbers.

    recipe -> data -> teacher -> [completions] -> student (and baseline) -> export -> scores -> report

A training stage that is finished with the same inputs is skipped and named; one that was begun with others stops
the run. What is cheap (scores, report) is done again when anything it depends on has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stilla import data, tasks
from stilla.check import refuse_known_problems
from stilla.errors import RecipeError, all_at_once
from stilla.recipe import Recipe
from stilla.recipe.file import from_options, read
from stilla.report import write_report
from stilla.runtime.narrate import say
from stilla.runtime.paths import meant
from stilla.runtime.processes import in_words, on_main, processes
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import Scores
from stilla.stages.folder import RunFolder
from stilla.stages.origin import elsewhere
from stilla.stages.scoring import export_all, score
from stilla.stages.stages import Place, Stages, refuse_weak, teacher_of


@dataclass(frozen=True)
class Run:
    """A finished run: what was measured and where things lie."""

    folder: Path
    scores: Scores
    report: Path
    student: Path

    @classmethod
    def load(cls, path: Path) -> Run:
        folder = RunFolder(path)
        return cls(path, Scores.load(folder.scores), folder.report, folder.student)


def distill(recipe: str | Path | None = None, *overrides: str, overwrite: bool = False, **options: Any) -> Run:
    """The main job from Python: a recipe file, or its fields as keywords (`task=`, `teacher=`, `student=`, `data=`)."""
    if recipe is None:
        return run(from_options(options, overrides), overwrite=overwrite)
    asked = read(recipe, overrides)
    if wrong := elsewhere(Path(meant(str(recipe))), asked):
        raise all_at_once(wrong, RecipeError)
    return run(asked, overwrite=overwrite)


def run(recipe: Recipe, *, overwrite: bool = False) -> Run:
    """The main job. Running it again continues or skips; with a launcher, every process calls it.

    Raises:
        StillaError: whatever a person has to put right, before anything is trained where it can be known.
        KeyboardInterrupt: a training was stopped; running again continues it.
    """
    with _at_work(recipe, overwrite=overwrite) as folder:
        stages = _with_teacher(recipe, folder).resolved()
        written = stages.completions()
        for seed in range(recipe.evaluate.seeds):
            stages.student("student", seed, written)
            if recipe.evaluate.baseline:
                stages.student("baseline", seed, written)
        on_main(lambda: _measured(stages))
        return Run.load(folder.path)


def capture(recipe: Recipe, *, workers: int = 0, overwrite: bool = False) -> list[str]:
    """What the teacher says of the training data, onto disk; gives where it lies. Beginning again continues.

    Hidden layers that objectives compare have a cache of their own.

    `workers`: let so many Ray workers do it, here or on the cluster that RAY_ADDRESS names.

    Raises:
        StillaError: whatever a person has to put right; another cache lies there.
    """
    with _at_work(recipe, overwrite=overwrite) as folder:
        stages = _with_teacher(recipe, folder).resolved(beforehand=True)
        return stages.capture(stages.completions(), workers)


@contextmanager
def _at_work(recipe: Recipe, *, overwrite: bool) -> Iterator[RunFolder]:
    """The run's folder, which is this run's alone until the end."""
    quiet_libraries()
    say(f"running in {in_words()}")
    on_main(lambda: refuse_known_problems(recipe))
    folder = RunFolder(Path(recipe.output))
    on_main(lambda: folder.open(overwrite=overwrite))
    try:
        yield folder
    finally:
        folder.close()


def _with_teacher(recipe: Recipe, folder: RunFolder) -> Stages:
    """The data read, the teacher there: given, or trained on the labels first."""
    with processes().main_process_first():
        splits = data.load(recipe.data, seed=recipe.seed)
    task = tasks.find(recipe.task).understand(recipe.data, splits).settled(recipe.teacher, recipe.student)
    place = Place(recipe, folder, splits, data.fingerprint.of_splits(splits), task)
    teacher = teacher_of(place)
    place = replace(place, task=task.adapted_to(teacher))
    refuse_weak(place, teacher)
    return Stages(place, teacher)


def _measured(stages: Stages) -> None:
    """Export, measure everything that was made, report."""
    place = stages.place
    place.write_down()
    exported = export_all(place.recipe, place.folder, place.task, place.splits)
    score(place.recipe, place.folder, place.task, place.splits, stages.teacher, exported)
    write_report(place.folder.path)
