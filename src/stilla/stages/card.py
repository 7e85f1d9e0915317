"""The model card of student and baseline: what a run knows, in the words of `export/card.py`."""

from __future__ import annotations

from pathlib import Path

from stilla.export.card import model_card, plain_usage, transformers_usage, write_card
from stilla.recipe import Recipe
from stilla.report.grouped import markdown_grouped
from stilla.report.parts import markdown_parts
from stilla.report.table import markdown_facts, markdown_table
from stilla.scores import Scores
from stilla.stages.folder import RunFolder
from stilla.stages.words import how
from stilla.tasks import find
from stilla.tasks.base import Loaded


def _teacher(recipe: Recipe) -> str:
    """Its name or place; of random weights only what it is: that is no model that anybody could load."""
    source = recipe.teacher
    if source.api is not None:
        return f"{source.model}, asked behind {source.api.url}; whoever publishes this has to know whether its terms allow it"
    return source.model if source.config is None else f"a {source.model} of random weights, trained here"


def card(
    recipe: Recipe, folder: RunFolder, scores: Scores, role: str, teacher: Loaded | None, model: Loaded, *, plain: bool
) -> Path:
    """Write the README of student or baseline. `teacher`: where a student's width is told, what it was cut from. `plain`: the
    model is no Hugging Face model."""
    task, heads = find(recipe.task), {name: find(kind) for name, kind in recipe.data.tasks.items()}
    usage = plain_usage(model.model, []) if plain else transformers_usage(task, heads)
    own = markdown_grouped(scores) if role == "student" else ""
    usage = f"{recipe.data.use}{usage}"
    name = folder.path.name if role == "student" else f"{folder.path.name}, labels alone"
    text = model_card(
        scores, subject=role, name=name, table=f"{markdown_facts(scores)}\n{markdown_table(scores)}",
        parts="\n".join(filter(None, (markdown_parts(scores), own))), teacher=_teacher(recipe),
        student=how(recipe.student, (teacher or model).model, model.model),
        data=recipe.data.named, usage=usage, pipeline=task.called(), transformers=not plain,
        unlabelled=[name for one in recipe.data.by_name.values() if one.unlabelled for name in one.unlabelled.examples])
    return write_card(folder.model(role, 0), text)
