"""Who proposes words for the places of others, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset

from stilla.check import places
from stilla.check.found import Found
from stilla.recipe import Recipe
from stilla.stages import proposing
from stilla.stages.proposing import Proposing
from stilla.stages.unlabelled import Pool, together
from stilla.tasks.base import Task
from stilla.tasks.text.proposals import Proposals, Rewords


@dataclass(frozen=True)
class ToPropose:
    """The model, and the different texts that it will be asked about."""

    by: Proposing
    texts: list[str]


def look(
    recipe: Recipe, splits: Mapping[str, Dataset], task: Task, pool: Pool | None, found: Found
) -> tuple[Task, ToPropose | None]:
    """The task as if no word had been proposed for any text, which is all that is known before the model is asked; and who
    that is, where it can and is on this machine."""
    section = proposing.section_of(task)
    if section is None or not isinstance(task, Rewords):
        return task, None
    found.problems += proposing.problems(recipe, task)
    texts = proposing.texts_of(task, together(task, splits, pool))
    if places.has_to_be_downloaded(proposing.source_of(section)):
        found.notes.append(f"{proposing.WHERE}: {section.model} is not on this machine; the run downloads it, and only then "
                           "sees whether it can propose words")
        return task.knowing(Proposals.none_for(texts)), None
    with found.attempt():
        by = Proposing.of(section)
        found.notes.append(f"{proposing.WHERE}: {section.model} is asked once for words for {len(texts):,} texts")
        return task.knowing(Proposals.none_for(texts)), ToPropose(by, texts)
    return task.knowing(Proposals.none_for(texts)), None
