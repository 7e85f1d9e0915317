"""Students of other runs as models: a run's folder stands for its student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.runtime.files import contents
from stilla.stages.folder import RunFolder, is_run
from stilla.stages.record import NOT_OURS


def of_runs(recipe: Recipe) -> Recipe:
    """The recipe with the student's folder wherever it names a run's as a model.

    Raises:
        RecipeError: a run that has no student yet.
    """
    student, teacher = recipe.student, recipe.teacher
    return recipe.model_copy(update={
        "student": student.model_copy(update={"model": _of_run(student.model, "student.model")}),
        "teacher": teacher.model_copy(update={"model": _of_run(teacher.model, "teacher.model")})})


def _of_run(model: str | None, where: str) -> str | None:
    if model is None or ":" in model or not is_run(Path(model).expanduser()):
        return model
    made = RunFolder(Path(model)).student
    if not made.expanduser().is_dir():
        raise RecipeError(f"{where}: {model} is a run that has no student yet; `stilla run {model}/recipe.yaml` goes on with "
                          "it")
    return str(made)


def first_run(recipe: Recipe) -> RunFolder | None:
    """The run whose student this one started from."""
    if recipe.student.model is None or ":" in recipe.student.model:
        return None
    path = Path(recipe.student.model).expanduser()
    folder = RunFolder(path.parent)
    return folder if is_run(folder.path) and path.is_dir() and path in (folder.student, folder.baseline) else None


def inputs_of(recipe: Recipe) -> dict[str, Any]:
    """What a training depends on of the run that its student started from; nothing where there is none."""
    run = first_run(recipe)
    return {} if run is None else {"start": contents(Path(str(recipe.student.model)).expanduser(), NOT_OURS)}
