"""The model card of student and baseline: what a run knows, in the words of `export/card.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stilla.errors import all_of
from stilla.export.card import model_card, plain_usage, transformers_usage, write_card
from stilla.recipe import Recipe, StudentSpec
from stilla.report.parts import markdown_parts
from stilla.report.table import markdown_facts, markdown_table
from stilla.scores import Scores
from stilla.stages.folder import RunFolder
from stilla.tasks.base import Loaded


def card(recipe: Recipe, folder: RunFolder, scores: Scores, role: str, model: Loaded, *, plain: bool) -> Path:
    """Write the README of student or baseline. `plain`: the model is no Hugging Face model."""
    usage = plain_usage(model.model, []) if plain else transformers_usage(recipe.task)
    name = folder.path.name if role == "student" else f"{folder.path.name}, labels alone"
    text = model_card(
        scores, subject=role, name=name, table=f"{markdown_facts(scores)}\n{markdown_table(scores)}",
        parts=markdown_parts(scores), teacher=recipe.teacher.model, student=_how(recipe.student),
        data=recipe.data.train or str(recipe.data.validation), usage=usage, transformers=not plain,
        unlabelled=() if recipe.data.unlabelled is None else recipe.data.unlabelled.examples)
    return write_card(folder.model(role, 0), text)


def _how(spec: StudentSpec) -> str:
    return f"{_model(spec)}{_tokens(spec)}"


def _model(spec: StudentSpec) -> str:
    if spec.model is not None:
        return f"a model of its own, started from {Path(spec.model).name}"
    if spec.config is not None:
        return f"the same architecture from random weights, with {_plain(dict(spec.config))}"
    return "all of its layers" if spec.layers is None else f"cut from it, layers {_plain(spec.layers)}"


def _tokens(spec: StudentSpec) -> str:
    wanted = spec.vocabulary
    if wanted is None:
        return ""
    if wanted.tokens is not None:
        return f", with {wanted.tokens:,} of its tokens"
    kept = [*(["those of its tokens that its training texts use"] if wanted.data else []),
            *([f"those of frequent words of {all_of(list(wanted.languages))}"] if wanted.languages else []),
            *([f"{wanted.extra:,} more of them"] if wanted.extra else [])]
    return f", with {all_of(kept)}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    return str(value)
