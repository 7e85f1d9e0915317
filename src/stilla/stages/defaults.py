"""What a recipe leaves open: objectives where it names none (what was measured for it stands in docs/defaults.md), and how
written texts are judged."""

from __future__ import annotations

from stilla.errors import RecipeError
from stilla.recipe import Evaluate, Generation, ObjectiveSpec, Recipe
from stilla.recipe.schedule import schedule
from stilla.stages.unlabelled import is_written
from stilla.tasks.base import Task
from stilla.tasks.language.writing import Writes


def resolved_writing(section: Evaluate, task: Task) -> Evaluate:
    """The section with `generation` and its metrics written out, for tasks whose models write by default or on demand.

    Raises:
        RecipeError: texts are to be measured, and the data ask for none.
    """
    if not isinstance(task, Writes):
        return section
    asked = section.writing or Generation()
    metrics = asked.metrics if asked.metrics is not None else task.text_metrics()
    if metrics and (why := task.unasked()):
        raise RecipeError(f"evaluate.generation: {why}, or leave it out")
    return section.with_writing(asked.model_copy(update={"metrics": metrics}))


def objectives_of(recipe: Recipe, task: Task) -> tuple[ObjectiveSpec, ...]:
    """What a stage of this recipe learns by that names no objectives.

    Where nothing has a label, the teacher's logits alone.
    """
    chosen = task.learns_by() or objectives_for(task.row_classes(), written=recipe.all_written)
    if are_labelled(recipe, task):
        return chosen
    return tuple(one.model_copy(update={"weight": schedule(1.0)}) for one in chosen if one.kind != task.labels_by().kind)


def are_labelled(recipe: Recipe, task: Task) -> bool:
    """Whether a student's training examples have labels: people's, or texts that the teacher writes."""
    return (recipe.data.train is not None and task.has_labels) or is_written(task)


def without_labels(recipe: Recipe, task: Task) -> list[str]:
    """Why nothing can be learnt from labels alone where a recipe asks for that, in words."""
    asked = [name for name, wanted in (("evaluate.baseline", recipe.evaluate.baseline), ("teacher.train",
             recipe.teacher.train is not None)) if wanted]
    if task.has_labels or recipe.data.train is None:
        return []
    return [f"{name}: learns from labels alone, and these data say of no example what is right (pairs with a score do, and "
            "queries with what answers them and what does not). Leave it out" for name in asked]


def objectives_for(classes: int, *, written: bool = False) -> tuple[ObjectiveSpec, ...]:
    """The labels and the teacher's logits, softened; a number (one output) is compared as it is.

    Hidden states are not among them: on students cut from a fine-tuned encoder they cost accuracy. What the teacher has
    `written` is learnt as it is (Kim and Rush 2016).
    """
    if written:
        return (ObjectiveSpec(kind="labels"),)
    logits = {"divergence": "mse"} if classes == 1 else {"temperature": 2.0}
    return ObjectiveSpec(kind="labels", weight=0.3), ObjectiveSpec(kind="logits", weight=0.7, **logits)
