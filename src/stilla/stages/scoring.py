"""From what a run made to its exported files and its `scores.json`: what is there with the same inputs is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from stilla import data
from stilla.errors import ExportError
from stilla.export import export, main_file
from stilla.models.fingerprint import of_model
from stilla.recipe import Recipe
from stilla.runtime.files import contents
from stilla.runtime.narrate import say
from stilla.scores import OF_BASELINE, Scores
from stilla.stages import adapting, kept, learnt, progress, reasons, spent, transfer
from stilla.stages.answered import Summary
from stilla.stages.card import card
from stilla.stages.folder import RunFolder
from stilla.stages.groups import Parts
from stilla.stages.measuring import measure
from stilla.stages.record import NOT_OURS
from stilla.stages.starting import saved_student, trained_again
from stilla.stages.unlabelled import Pool, to_look_at
from stilla.tasks.base import Loaded, Task

CALIBRATION = 256
"""Training examples that quantisation may look at."""


def export_all(
    recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset], pool: Pool | None = None
) -> tuple[dict[str, Path], list[ExportError]]:
    """Every format that the recipe asks for, written from the student's files; and those that `stilla export` wrote.

    A format that cannot hold the student keeps nobody from the others, nor from the scores: what is wrong comes beside them.
    """
    later = exports_of(folder)
    asked = [*recipe.export, *(name for name in later if name not in recipe.export and folder.damage(stage_of(name)))]
    wrong: list[ExportError] = []
    for name in asked:
        try:
            later[name] = export_one(name, recipe, folder, task, splits, pool)
        except ExportError as error:
            later.pop(name, None)  # an older one holds other weights
            wrong.append(error)
    return later, wrong


def exports_of(folder: RunFolder) -> dict[str, Path]:
    """The main file of all that was exported, by name: a format of the student's, `onnx`, or of the baseline's,
    `baseline-onnx`."""
    made = {path.name: main_file(path) for path in sorted(folder.exports.glob("*")) if path.is_dir()}
    return {kind: file for kind, file in made.items() if file is not None}


def exported_as(role: str, kind: str) -> str:
    """The name of a format that the student or the baseline is written in."""
    return kind if role == "student" else f"{OF_BASELINE}{kind}"


def stage_of(name: str) -> str:
    """The stage in which it is written."""
    return f"export-{name}"


def export_one(
    name: str, recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset], pool: Pool | None = None
) -> Path:
    """One format of student or baseline, skipped if it was written from the same weights; the exported model file."""
    role, kind = ("baseline" if name.startswith(OF_BASELINE) else "student"), name.removeprefix(OF_BASELINE)
    student, task = saved_student(recipe, folder, task, role, 0), task.delivered(recipe.evaluate)
    inputs = {role: of_model(student.model), "format": kind, **task.companions}
    stage, target = stage_of(name), folder.exports / name
    damaged = folder.is_damaged(stage)
    if damaged:
        folder.clear(stage, target)
    if damaged or not folder.fits(stage, inputs) or main_file(target) is None:
        examples = splits["train"] if "train" in splits else to_look_at(task, splits, pool)
        # spread over the whole split: its first examples may all be of one class
        prepared = task.prepare(data.from_all_over(examples, CALIBRATION), student.processor, None, training=False)
        folder.begin(stage, inputs)
        export(kind, student.model, student.processor, task, prepared, target)
        folder.finish(stage, inputs, target)
        say(f"{name}: written to {target}")
    made = main_file(target)
    assert made is not None  # `export` has just written it, or it was there
    return made


def score(
    recipe: Recipe, folder: RunFolder, task: Task, splits: Mapping[str, Dataset], teacher: Loaded | None,
    exported: Mapping[str, Path], *, again: bool = False, written: Recipe | None = None,
) -> Scores:
    """Measure teacher, student, baseline and exported files on validation and test data, and write the scores.

    `teacher`: None where it is behind an address, and what it answered is all that is known of it. `again`: also where
    nothing has changed. The old scores stay until there are new ones. `written`: the recipe in whose words the model card
    speaks, if others than these.
    """
    roles = ["student", *(["baseline"] if recipe.evaluate.baseline else [])]
    seeds = range(recipe.evaluate.seeds)
    made = {role: [saved_student(recipe, folder, task, role, seed) for seed in seeds] for role in roles}
    parts = [] if recipe.personal is None else [Parts.of(folder, seed) for seed in seeds]
    measured = data.to_measure(splits)
    answers = Summary.of(folder.path) if teacher is None else None
    known = None if answers is None else asdict(answers)
    inputs = {"teacher": known if teacher is None else of_model(teacher.model),
              "evaluate": recipe.evaluate.model_dump(mode="json"), "seed": recipe.seed,
              "exports": {kind: contents(path.parent, NOT_OURS) for kind, path in exported.items()},
              "data": data.fingerprint.of_splits(measured), **recipe.teacher.told,
              **transfer.inputs_of(recipe),
              **({"again": contents(folder.model("teacher", 1), NOT_OURS)} if recipe.asks_for_a_ceiling else {}),
              **({"learnt": learnt_from} if any(learnt_from := learnt.of(folder, recipe)) else {}),
              **({"adapted": asdict(adapted)} if (adapted := adapting.of(folder, recipe)) else {}),
              **({"parts": [one.content() for one in parts]} if parts else {}),
              **{role: [of_model(one.model) for one in models] for role, models in made.items()}}
    if not again and folder.fits("scores", inputs) and not folder.is_damaged("scores"):
        found = _measured_before(folder.scores)
        if found is not None:
            say("scores: measured before, skipped")
            return found
    notes = [] if answers is None else answers.sentences()
    scores = learnt.said_in(measure(recipe, task, measured, teacher, made, exported, parts=parts, notes=notes), learnt_from)
    scores = progress.said_in(scores, folder.log, [*(["teacher"] if recipe.teacher.train else []), *roles])
    scores = spent.said_in(adapting.said_in(scores, adapted), spent.of(folder.log), recipe.evaluate.watts)
    scores = reasons.said_in(scores, recipe, task, measured, teacher, made, trained_again(recipe, folder, task))
    scores = kept.said_in(scores, recipe, made["student"][0], made["baseline"][0] if "baseline" in made else None)
    scores.dump(folder.scores)
    origin = teacher if teacher is None or recipe.student.width is None else task.pattern(teacher)
    for role, models in made.items():
        plain = not isinstance(models[0].model, PreTrainedModel)
        card(written or recipe, folder, scores, role, origin, models[0], plain=plain)
    folder.finish("scores", inputs, folder.scores)
    return scores


def _measured_before(path: Path) -> Scores | None:
    """None where there are none, or none that can be read: measuring again costs less than an error."""
    try:
        return Scores.load(path)
    except (OSError, ValueError):
        return None
