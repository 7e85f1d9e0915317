"""What a recipe leaves open: objectives where it names none (what was measured for it stands in docs/defaults.md), and how
written texts are judged."""

from __future__ import annotations

from stilla.errors import RecipeError
from stilla.recipe import Evaluate, Generation, ObjectiveSpec, Recipe
from stilla.recipe.schedule import schedule
from stilla.stages.unlabelled import is_written
from stilla.tasks.base import Task
from stilla.tasks.language.writing import Writes
from stilla.tasks.shared.learning import objectives_for


def resolved_writing(section: Evaluate, task: Task) -> Evaluate:
    """The section with `generation` and its metrics written out, for tasks whose models write by default or on demand.

    Raises:
        RecipeError: texts are to be measured, and the data ask for none.
    """
    if not isinstance(task, Writes):
        if section.writing is not None:
            raise RecipeError(f"evaluate.generation: these models of `{task.kind}` write no texts; leave it out")
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
    api = recipe.teacher.api
    if api is not None and api.logprobs is None:  # its answers are labels
        return (task.labels_by(),)
    chosen = task.learns_by() or objectives_for(task.row_classes(), written=recipe.all_written and api is None)
    if are_labelled(recipe, task):
        return chosen
    return tuple(one.model_copy(update={"weight": schedule(1.0)}) for one in chosen if one.kind != task.labels_by().kind)


def are_labelled(recipe: Recipe, task: Task) -> bool:
    """Whether a student's training examples have labels: people's, or what the teacher makes of them."""
    answered = recipe.teacher.api is not None or is_written(task) or task.labels_by_teacher
    return (recipe.data.is_labelled and task.has_labels) or answered


def without_labels(recipe: Recipe, task: Task) -> list[str]:
    """Why nothing can be learnt from labels alone where a recipe asks for that, in words."""
    asked = [name for name, wanted in (("evaluate.baseline", recipe.evaluate.baseline), ("teacher.train",
             recipe.teacher.train is not None)) if wanted]
    if task.incomparable is not None and recipe.evaluate.baseline:
        return [f"evaluate.baseline: {task.incomparable}. Leave it out"]
    if task.has_labels or not recipe.data.is_labelled:
        return []
    return [f"{name}: learns from labels alone, and these data say of no example what is right (pairs with a score do, and "
            "queries with what answers them). Leave it out" for name in asked]
