"""The tasks, by the name that a recipe gives them. Adding one: a file in this folder, a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stilla.errors import CompatibilityError, RecipeError, did_you_mean, one_of

if TYPE_CHECKING:
    from torch import nn

    from stilla.tasks.base import Task

__all__ = ["KINDS", "find", "kinds", "of_model"]

KINDS: Mapping[str, str] = {
    "text-classification": "stilla.tasks.text.text_classification:TextClassification",
    "seq2seq": "stilla.tasks.language.seq2seq:Seq2Seq",
    "image-classification": "stilla.tasks.vision.image_classification:ImageClassification",
    "causal-lm": "stilla.tasks.language.causal_lm:CausalLM",
    "masked-lm": "stilla.tasks.language.masked_lm:MaskedLM",
}


def kinds() -> tuple[str, ...]:
    """The names of the tasks that come with Stilla."""
    return tuple(KINDS)


def find(kind: str) -> type[Task]:
    """The class behind a recipe's `task`: a name of the table, or `package.module:Class`.

    Raises:
        RecipeError: no such name, no such module or class, or it is not a task.
    """
    if kind not in KINDS and ":" not in kind:
        raise RecipeError(f"task: got {kind!r}; expected {one_of(kinds())}, or package.module:Class."
                          f"{did_you_mean(kind, KINDS)}")
    from stilla.runtime.imports import import_path
    from stilla.tasks.base import Task

    found = import_path(KINDS.get(kind, kind))
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise RecipeError(f"task: got {kind!r}, which is not a subclass of stilla.tasks.base.Task.")
    return found


def of_model(model: nn.Module) -> Task:
    """The task that a model's class is made for.

    Raises:
        CompatibilityError: none that Stilla knows.
    """
    for kind in KINDS:
        task = find(kind)
        if type(model).__name__.endswith(task.heads):
            return task.of_model(model)
    raise CompatibilityError(f"no task is known for a {type(model).__name__}; give one of {one_of(kinds())} "
                             "as `task`.")
