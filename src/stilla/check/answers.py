"""What the answers of a teacher behind an address will cost, and whether the rest of the way can be looked at."""

from __future__ import annotations

from datasets import Dataset

from stilla.check import places
from stilla.check.found import Found
from stilla.recipe import ModelSource, Recipe
from stilla.stages import asking
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Task


def can_go_on(
    recipe: Recipe, splits: dict[str, Dataset], task: Task, pool: Pool | None, found: Found
) -> bool:
    """What questions to a teacher behind an address will cost. Whether the way can be gone on: with problems it is not, as
    what follows would speak of a model that nobody has."""
    if found.problems:
        return False
    with found.attempt():
        wrong, notes = asking.looked_at(recipe, task, splits, pool)
        found.problems += wrong
        found.notes += notes
    if found.problems:
        return False
    student = ModelSource(model=recipe.student.model or "", revision=recipe.student.revision)
    if places.has_to_be_downloaded(student):
        found.notes.append(f"student: {student.model} is not on this machine; the run downloads it, and only then sees "
                           "whether it fits")
        return False
    return True
