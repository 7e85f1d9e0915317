"""What would be found beside the queries of the training data, by whom, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset

from stilla.check.found import Found
from stilla.check.places import has_to_be_downloaded
from stilla.errors import counted
from stilla.recipe import ModelSource, Recipe
from stilla.stages import mining
from stilla.tasks.base import Loaded, Task
from stilla.tasks.retrieval.mining import WHERE, Mines


@dataclass(frozen=True)
class ToMine:
    """How many texts are read, each counted as the share of an example that it is, and how many similarities are looked at.
    `finder`: who reads them in the teacher's place."""

    examples: float
    similarities: int
    finder: Loaded | None = None


def look(
    recipe: Recipe, splits: dict[str, Dataset], task: Task, teacher: Loaded, found: Found
) -> tuple[dict[str, Dataset], Task, ToMine | None]:
    """Data and task as if any documents had been found, which is all that is known before somebody looks."""
    how = mining.mining_of(task)
    if how is None or not isinstance(task, Mines):
        return splits, task, None
    found.problems += mining.problems(recipe, task)
    if "train" not in splits:
        return splits, task, None
    questions, train = how.as_if_found(splits["train"])
    by, finder = how.section.by, None
    if by is not None and has_to_be_downloaded(ModelSource(model=by)):
        found.notes.append(f"{WHERE}.by: {by} is not on this machine; the run downloads it, and the estimate leaves out what "
                           "it reads")
    elif by is not None:
        with found.attempt(f"{WHERE}.by"):
            _, finder = task.found_by(teacher)
    found.notes.append(f"{WHERE}: {by or 'the teacher'} reads {counted(len(questions.queries), 'query')} and "
                       f"{counted(len(questions.documents), 'document')} once, to find {how.section.mined} beside each of "
                       f"{counted(len(questions), 'answer')}")
    asked = ToMine(len(questions.texts) / len(how.learnt.columns), len(questions) * len(questions.documents), finder)
    return {**splits, "train": train}, task.with_found(how.learnt), asked
