"""The tasks, by the name that a recipe gives them. Adding one: its file and its section in a wing, a line in the table of
`recipe/kinds.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stilla.errors import CompatibilityError, one_of
from stilla.recipe.kinds import KINDS, not_a_task, sections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset
    from torch import nn

    from stilla.recipe import Recipe
    from stilla.tasks.base import Task

__all__ = ["KINDS", "find", "kinds", "of_model", "of_recipe"]


def kinds() -> tuple[str, ...]:
    """The names of the tasks that come with Stilla."""
    return tuple(KINDS)


def find(kind: str) -> type[Task]:
    """The class behind a recipe's `task`: a name of the table, or `package.module:Class`.

    Raises:
        RecipeError: no such name, no such module or class, it is not a task, or what it declares is no section.
    """
    sections(kind)
    from stilla.runtime.imports import import_path
    from stilla.tasks.base import Task

    found = import_path(KINDS[kind].task if kind in KINDS else kind)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise not_a_task(kind)
    return found


def of_recipe(recipe: Recipe, splits: Mapping[str, Dataset]) -> Task:
    """The recipe's task, bound to its data, and settled for its models.

    Raises:
        DataError, CompatibilityError: see `Task.understand`, `Task.taught_from`, `Task.taught_at_length` and
            `Task.settled`.
    """
    task = find(recipe.task).understand(recipe.data, splits).taught_from(recipe.teacher.columns, splits)
    if recipe.teacher.longest is not None:
        task = task.taught_at_length(recipe.teacher.longest)
    return task.settled(recipe.teacher, recipe.student)


def of_model(model: nn.Module) -> Task:
    """The task that a model's class is made for.

    Raises:
        CompatibilityError: none that Stilla knows.
    """
    name = type(model).__name__
    # the ending that says most: a Wav2Vec2ForSequenceClassification hears
    fitting = [(len(head), -place, task) for place, task in enumerate(map(find, KINDS)) for head in task.heads
               if name.endswith(head)]
    if fitting:
        return max(fitting, key=lambda one: one[:2])[2].of_model(model)
    raise CompatibilityError(f"no task is known for a {name}; give one of {one_of(kinds())} "
                             "as `task`.")
