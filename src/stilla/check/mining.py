"""What the teacher would find beside the queries of the training data, and whether it can."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset

from stilla.check.found import Found
from stilla.errors import counted
from stilla.recipe import Recipe
from stilla.stages import mining
from stilla.tasks.base import Task
from stilla.tasks.retrieval.mining import WHERE, Mines


@dataclass(frozen=True)
class ToMine:
    """How many texts the teacher reads, each counted as the share of an example that it is, and how many similarities are
    looked at."""

    examples: float
    similarities: int


def look(
    recipe: Recipe, splits: dict[str, Dataset], task: Task, found: Found
) -> tuple[dict[str, Dataset], Task, ToMine | None]:
    """Data and task as if any documents had been found, which is all that is known before the teacher is asked."""
    how = mining.mining_of(task)
    if how is None or not isinstance(task, Mines):
        return splits, task, None
    found.problems += mining.problems(recipe, task)
    if "train" not in splits:
        return splits, task, None
    questions, train = how.as_if_found(splits["train"])
    found.notes.append(f"{WHERE}: the teacher reads {counted(len(questions.queries), 'query')} and "
                       f"{counted(len(questions.documents), 'document')} once, to find {how.section.mined} beside each of "
                       f"{counted(len(questions), 'answer')}")
    asked = ToMine(len(questions.texts) / len(how.learnt.columns), len(questions) * len(questions.documents))
    return {**splits, "train": train}, task.with_found(how.learnt), asked
