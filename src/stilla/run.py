"""The straight line: from a recipe to a deployed student with honest numbers.

    recipe -> data -> [generated] -> [proposals] -> teacher -> [negatives] -> [unlabelled] -> [completions] ->
    student (and parts of it, baseline) -> export -> scores
                                                  -> report

A training stage that is finished with the same inputs is skipped and named; one that was begun with others stops
the run. What is cheap (scores, report) is done again when anything it depends on has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stilla import data, tasks
from stilla.check import refuse_known_problems, refuse_wrong_names
from stilla.errors import ExportError, RecipeError
from stilla.recipe import Recipe
from stilla.report import write_report
from stilla.runtime.narrate import say
from stilla.runtime.processes import in_words, on_main, processes
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import Scores
from stilla.stages import (
    asking,
    completions,
    generated,
    layering,
    mining,
    personal,
    proposing,
    sizing,
    transfer,
    unlabelled,
)
from stilla.stages.completions import Completed
from stilla.stages.folder import RunFolder
from stilla.stages.given import Call, Source
from stilla.stages.place import Place, refuse_weak, teacher_again, teacher_of
from stilla.stages.scoring import export_all, score
from stilla.stages.stages import Stages


@dataclass(frozen=True)
class Run:
    """A finished run: what was measured and where things lie."""

    folder: Path
    scores: Scores
    report: Path
    student: Path

    @classmethod
    def load(cls, path: str | Path) -> Run:
        folder = RunFolder(Path(path))
        return cls(folder.path, Scores.load(folder.scores), folder.report, folder.student)


def distill(
    recipe: Source = None, *overrides: str, overwrite: bool = False, processing_class: Any = None, **options: Any
) -> Run:
    """The main job from Python: a recipe (its file, a dict, a Recipe), its fields as keywords, or fields in place of a
    recipe's.

    Where a recipe has names, `data=` also takes datasets, data frames, lists of dicts and dicts of lists, `teacher=` and
    `student=` loaded models, alone or as (model, tokenizer). They are written into the run folder by content, so that the
    same call continues or skips, and another one is refused.

    Args:
        overwrite: throw away what lies in the run folder, where it does not fit.
        processing_class: tokenizer or image processor of the models that are given without one.

    Raises:
        StillaError: as for `run`.
    """
    with _called(recipe, overrides, options, processing_class) as asked:
        return run(asked, overwrite=overwrite)


def run(recipe: Recipe, *, overwrite: bool = False) -> Run:
    """The main job. Running it again continues or skips; with a launcher, every process calls it.

    Raises:
        StillaError: whatever a person has to put right, before anything is trained where it can be known.
        KeyboardInterrupt: a training was stopped; running again continues it.
    """
    with _at_work(recipe, overwrite=overwrite) as folder:
        stages = with_teacher(recipe, folder).resolved().chosen()
        written = stages.completions()
        stages = with_student(stages, written)
        cut = stages.narrowed(written)
        for seed in range(recipe.evaluate.seeds):
            stages.student("student", seed, written, cut)
            personal.follow(stages, seed, written, cut)
            if recipe.evaluate.baseline:
                stages.student("baseline", seed, written, cut)
        teacher_again(stages.place)
        on_main(lambda: _measured(stages))
        return Run.load(folder.path)


def capture(
    recipe: Source = None, *overrides: str, workers: int = 0, overwrite: bool = False, processing_class: Any = None,
    **options: Any,
) -> list[str]:
    """What the teacher says of the training data, onto disk; gives where it lies. Beginning again continues.

    Hidden layers that objectives compare have a cache of their own. Of a teacher behind an address it is answers, which are
    no such cache, and nothing is given. Takes what `distill` takes.

    `workers`: let so many Ray workers do it, here or on the cluster that RAY_ADDRESS names.

    Raises:
        StillaError: whatever a person has to put right; another cache lies there.
    """
    with _called(recipe, overrides, options, processing_class) as asked, _at_work(asked, overwrite=overwrite) as folder:
        stages = with_teacher(asked, folder).resolved(beforehand=True).chosen()
        written = stages.completions()
        if asked.teacher.api is not None:
            say(f"the teacher's answers are in {asking.store_of(asked)}")
            return []
        return with_student(stages, written).capture(written, workers)


@contextmanager
def _called(
    recipe: Source, overrides: Sequence[str], options: Mapping[str, Any], processing_class: Any
) -> Iterator[Recipe]:
    """The recipe that a call means. Mistakes that need no files are found before any is written."""
    call = Call.of(recipe, overrides, options, processing_class)
    if call.given:
        on_main(lambda: refuse_wrong_names(call.recipe))
    with call.written_down() as asked:
        yield asked


@contextmanager
def _at_work(recipe: Recipe, *, overwrite: bool) -> Iterator[RunFolder]:
    """The run's folder, which is this run's alone until the end."""
    if recipe.search is not None:
        raise RecipeError("search: this recipe has values to be tried: `stilla search` tries them, and `stilla run` of the "
                          "best.yaml that it writes makes the student. Or run it with the values that it has: search=null")
    quiet_libraries()
    say(f"running in {in_words()}")
    on_main(lambda: refuse_known_problems(recipe))
    folder = RunFolder(Path(recipe.output), processes().num_processes)
    on_main(lambda: folder.open(overwrite=overwrite))
    try:
        yield folder
    finally:
        folder.close()


def with_teacher(recipe: Recipe, folder: RunFolder) -> Stages:
    """The data read, the teacher there: given, or trained on the labels first."""
    recipe = transfer.of_runs(recipe)
    with processes().main_process_first():
        splits = data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data)
        named = data.load_all_unlabelled(recipe.data, seed=recipe.seed)
    task = tasks.of_recipe(recipe, splits)
    learnt = data.fingerprint.of_splits(data.to_learn_from(splits))
    place = Place(asking.settled(completions.settled(recipe, task)), folder, splits, learnt, task)
    place = replace(place, pool=unlabelled.of_run(recipe, task, splits, named, partial(generated.written, place)))
    place = proposing.known(place)
    teacher = teacher_of(place)
    place = replace(place, task=place.task.adapted_to(teacher))
    place.task.exams(recipe.evaluate)  # whatever they need that is not there is missed now, and not behind a training
    refuse_weak(place, teacher)
    return Stages(mining.mined(place, teacher), teacher)


def with_student(stages: Stages, written: Completed | None) -> Stages:
    """The same with a student whose size and layers are named, where the recipe leaves them open."""
    return layering.placed(sizing.sized(stages, written), written)


def _measured(stages: Stages) -> None:
    """Export, measure everything that was made, report. What could not be exported is said when all else is there."""
    place = stages.place
    place.write_down()
    exported, wrong = export_all(place.recipe, place.folder, place.task, place.splits, place.pool)
    score(place.recipe, place.folder, place.task, place.splits, stages.measured_teacher, exported)
    write_report(place.folder.path)
    if wrong:
        raise ExportError(f"{'; '.join(map(str, wrong))}. All else of the run is done: the student lies in "
                          f"{place.folder.student}, and what it reached is in {place.folder.report}")
