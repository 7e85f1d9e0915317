"""What can be done with a finished run: score it on other data, export it, write its report again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from stilla import data, tasks
from stilla.data.given import one_split
from stilla.errors import DataError, FolderError, RecipeError, TrustError
from stilla.recipe import Recipe
from stilla.recipe.file import read
from stilla.recipe.yaml import flow
from stilla.report import write_report
from stilla.runtime.paths import meant
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import Scores
from stilla.stages import generated, unlabelled
from stilla.stages.answered import Summary
from stilla.stages.compared import CHOSEN_ON
from stilla.stages.folder import RunFolder, is_run
from stilla.stages.groups import Parts
from stilla.stages.measuring import measure, sliced_by
from stilla.stages.origin import Origin, from_anywhere, told_where
from stilla.stages.scoring import export_one, exported_as, exports_of, score, stage_of
from stilla.stages.starting import saved_student, trained
from stilla.tasks.base import Loaded, Task


def evaluate_run(
    path: str | Path, new: Any = None, *overrides: str, slices: Sequence[str] = (), trust_remote_code: bool = False
) -> Scores:
    """Score a run again: on its own data, or on `new` (a file or folder with the same columns, or data as `distill` takes
    them).

    Scores on new data are written to `evaluations/` of the run and touch nothing else.
    `overrides`: how new data are read where that differs from the run's own (`data.broken=skip`).
    `slices`: columns by whose values to measure apart, in the place of the recipe's.
    `trust_remote_code`: let code run that the run's recipe names (import paths), or that comes with its models.

    Raises:
        RecipeError: there is no finished run; its own data are to be read otherwise than they were.
        TrustError: its recipe names code, and that is not trusted.
        DataError: the new data do not have the run's columns, or labels that its models do not know; columns of `slices`
            that are not there, or tell no groups apart.
    """
    folder, recipe, written = _opened(Path(path), overrides, trusted=trust_remote_code)
    recipe = _sliced(recipe, slices) if slices else recipe
    if new is None:
        if overrides:
            raise RecipeError(f"{path}: its own data are read as they were; {overrides[0]} is for new data (--data)")
        return _scored_again(folder, recipe, written)
    with told_where(recipe, folder):
        return _scored_on(new, folder, recipe, asked=bool(slices))


def _sliced(recipe: Recipe, columns: Sequence[str]) -> Recipe:
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"slices": tuple(columns)})})


def _scored_on(new: Any, folder: RunFolder, recipe: Recipe, *, asked: bool) -> Scores:
    """`asked`: the slices are those that were asked for now, not the recipe's."""
    name, shown, split, target = _new_data(new, folder, recipe)
    lacking = [column for column in recipe.evaluate.slices if column not in split.column_names and not asked]
    recipe = _sliced(recipe, [column for column in recipe.evaluate.slices if column not in lacking])
    sliced_by(recipe, {name: split})
    try:
        task = tasks.of_recipe(recipe, {name: split})
    except DataError as error:  # the new data are no part of the recipe
        raise DataError(str(error).replace(f"data.{name}:", f"{shown}:")) from error
    teacher = _teacher(recipe, folder, task)
    task = task.adapted_to(teacher or _student(recipe, folder, task))
    made = {role: [saved_student(recipe, folder, task, role, seed) for seed in range(recipe.evaluate.seeds)]
            for role in ("student", "baseline") if folder.model(role, 0).exists()}
    validation, unchosen = None, list[str]()
    if task.settles or task.has_settled(made["student"][0].model):
        validation, unchosen = _chosen_on(recipe)
    if validation is not None:  # what may be answered is as the run knows it: that there is no answer
        task = tasks.of_recipe(recipe, {name: split, CHOSEN_ON: validation}).adapted_to(teacher or made["student"][0])
    target.parent.mkdir(exist_ok=True)  # where nothing can be written, that is known before anything is measured
    notes = [*_of_answers(recipe, folder), *unchosen,
             *(f"slices: {Path(shown).name} has no column {column!r}, which the recipe names" for column in lacking)]
    parts = [] if recipe.personal is None else [Parts.of(folder, seed) for seed in range(recipe.evaluate.seeds)]
    if parts and parts[0].by not in split.column_names:
        parts, by = [], parts[0].by
        notes.append(f"personal: {Path(shown).name} has no column {by!r}, so nobody's part is asked")
    scores = measure(recipe, task, {name: split}, teacher, made, exports_of(folder), parts=parts, notes=notes,
                     validation=validation, own=False)
    scores.dump(target)
    return scores


def _chosen_on(recipe: Recipe) -> tuple[Dataset | None, list[str]]:
    """The run's validation data; where they cannot be read any more, that nothing is chosen on them."""
    try:
        return data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data).get("validation"), []
    except DataError as error:
        return None, ["the run's validation data are not there any more, so that its models choose nothing on them (data."
                      f"thresholds, when there is no answer), and are measured as if they had not: {error}"]


def _new_data(new: Any, folder: RunFolder, recipe: Recipe) -> tuple[str, str, Dataset, Path]:
    """What new data are called in scores and in words, the data, and where their scores go."""
    if isinstance(new, str | Path):
        place = meant(str(new))
        return Path(place).stem, place, data.load_one(place, recipe.data), evaluation_file(folder.path, place)
    try:
        split = one_split(new)
    except DataError as error:
        raise DataError(f"new: {error}") from error
    digits = data.fingerprint.of_splits({"new": split})[:6]
    return "new", "new", split, folder.path / "evaluations" / f"new-{digits}.json"


def evaluation_file(path: Path, new: str) -> Path:
    """Where a run's scores on new data lie: under the file's name, and a few digits of where it is, as names repeat."""
    place = new if "://" in new else str(Path(new).resolve())
    return path / "evaluations" / f"{Path(new).stem}-{hashlib.sha256(place.encode()).hexdigest()[:6]}.json"


def export_run(
    path: Path, formats: Sequence[str], *, model: Literal["student", "baseline"] = "student", trust_remote_code: bool = False
) -> dict[str, Path]:
    """Write a run's student in these formats, and measure what was written with everything else.

    `model`: or its baseline, the same student trained on labels alone. `trust_remote_code`: see `evaluate_run`.

    Raises:
        RecipeError: there is no finished run; it has no baseline.
        TrustError: its recipe names code, and that is not trusted.
        ExportError: a format cannot hold this model.
    """
    names = [exported_as(model, kind) for kind in formats]
    folder, recipe, written = _opened(path, trusted=trust_remote_code, written_again=[*map(stage_of, names), "scores"])
    if not folder.model(model, 0).exists():
        raise RecipeError(f"{path}: the run has no baseline to export; `evaluate: {{baseline: true}}` in its recipe, and "
                          f"{_continued(folder)} trains one")
    with folder.held():
        with told_where(recipe, folder):
            task, teacher = _ready(folder, recipe)
            splits = data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data)
            pool = None if "train" in splits else unlabelled.of_run(
                recipe, task, splits, data.load_all_unlabelled(recipe.data, seed=recipe.seed),
                lambda given: generated.again(recipe, task, splits, given, folder.generated))
        for name in names:
            export_one(name, recipe, folder, task, splits, pool)
        score(recipe, folder, task, splits, teacher, exports_of(folder), written=written)
        write_report(folder.path)
    return {name: folder.exports / name for name in names}


def report_run(path: Path) -> Path:
    """Write the report page again from what the run measured. Its recipe is shown as text, and nothing else is done with it.

    Raises:
        RecipeError: there is no finished run.
    """
    path = Path(meant(str(path)))
    if not is_run(path):
        raise RecipeError(f"{path} is no run folder: it has neither stages.json nor scores.json")
    return write_report(path)


def _scored_again(folder: RunFolder, recipe: Recipe, written: Recipe) -> Scores:
    with folder.held():
        with told_where(recipe, folder):
            task, teacher = _ready(folder, recipe)
            splits = data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data)
        scores = score(recipe, folder, task, splits, teacher, exports_of(folder), again=True, written=written)
        write_report(folder.path)
    return scores


def _opened(
    path: Path, overrides: Sequence[str] = (), *, trusted: bool, written_again: Collection[str] = ("scores",)
) -> tuple[RunFolder, Recipe, Recipe]:
    """A run's folder, and its recipe with the whole paths of what it names, and as it is written.

    `written_again`: stages whose files need not be what was written.

    Raises:
        RecipeError: there is no finished run.
        TrustError: its recipe names code, and that is not trusted.
        FolderError: what the run made is damaged, or was changed by hand.
    """
    quiet_libraries()
    path = Path(meant(str(path)))
    folder = RunFolder(path)
    if not is_run(path):
        raise RecipeError(f"{path} is no run folder: it has neither stages.json nor scores.json")
    if not folder.student.exists():
        raise RecipeError(f"the run in {path} has no student yet; {_continued(folder)} continues it")
    folder.refuse_damage(written_again, _continued(folder))
    if wrong := folder.changed():
        raise FolderError(f"{'; '.join(wrong)}. The run's own recipe again, with `stilla run`, writes it anew")
    try:
        written = read(folder.recipe, [f"output={flow(str(path))}", *overrides], trusted=None if trusted else ())
    except TrustError as error:
        raise TrustError(f"{error}. If the run is yours, or you trust whoever made it, say so: --trust-remote-code "
                         "(from Python, trust_remote_code=True)") from None
    return folder, from_anywhere(written, folder), written


def _continued(folder: RunFolder) -> str:
    origin, file = Origin.of(folder), folder.recipe
    if origin is None or not origin.started.is_dir() or os.path.samefile(origin.started, os.curdir):
        return f"`stilla run {file}`"
    return f"`cd {origin.started} && stilla run {file.resolve()}`"


def _ready(folder: RunFolder, recipe: Recipe) -> tuple[Task, Loaded | None]:
    splits = data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data)
    task = tasks.of_recipe(recipe, splits)
    teacher = _teacher(recipe, folder, task)
    return task.adapted_to(teacher or _student(recipe, folder, task)), teacher


def _of_answers(recipe: Recipe, folder: RunFolder) -> list[str]:
    """What is known of a teacher behind an address, in words."""
    answers = Summary.of(folder.path) if recipe.teacher.api is not None else None
    return [] if answers is None else answers.sentences()


def _teacher(recipe: Recipe, folder: RunFolder, task: Task) -> Loaded | None:
    """None where it is behind an address."""
    if recipe.teacher.api is not None:
        return None
    source = recipe.teacher if recipe.teacher.train is None else trained(recipe.teacher, folder.teacher)
    return task.of_teacher().load(source, labelled=True)


def _student(recipe: Recipe, folder: RunFolder, task: Task) -> Loaded:
    return saved_student(recipe, folder, task, "student", 0)
