"""Who writes unlabelled texts, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import Dataset

from stilla.check import places
from stilla.check.found import Found
from stilla.recipe import Recipe
from stilla.stages import generated
from stilla.stages.generated import Writing
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Task


def look(
    recipe: Recipe, splits: Mapping[str, Dataset], task: Task, pool: Pool | None, found: Found
) -> Writing | None:
    """The model with what it would be shown; None where none is asked for, it cannot write, or it is not on this machine."""
    section = generated.section_of(recipe)
    if section is None or generated.problems(recipe, task):
        return None
    if places.has_to_be_downloaded(generated.source_of(section)):
        found.notes.append(f"{generated.WHERE}: {section.model} is not on this machine; the run downloads it, and only then "
                           "sees whether it can write")
        return None
    with found.attempt():
        return Writing.of(section, task, splits, pool, recipe.seed)
    return None
