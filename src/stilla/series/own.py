"""A recipe's own values of the fields that a search tries, defaults among them: they are the first trial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from stilla import objectives
from stilla.errors import all_of, short
from stilla.objectives.base import options_model
from stilla.recipe import ObjectiveSpec, Recipe
from stilla.recipe.overrides import field_at
from stilla.recipe.schedule import Schedule
from stilla.recipe.yaml import flow
from stilla.series.space import Space


def own_values(recipe: Recipe, space: Space) -> dict[str, Any]:
    """By path; None of a field that the recipe leaves to what a run settles."""
    plain = recipe.model_dump(mode="json")
    for stage, made in zip(plain["distill"], recipe.distill, strict=True):
        for written, spec in zip(stage["objectives"] or (), made.objectives or (), strict=True):
            written.update(_defaults(spec) | written)
    return {path: _at(plain, path) for path in space.values}


def why_no_trial_has_them(recipe: Recipe, space: Space) -> Iterator[str]:
    """In words, what keeps the recipe's own values from being a trial; nothing where they are one."""
    values = own_values(recipe, space)
    if space.named(values) is not None:
        return
    apart = [path for path in values if not space.holds(path, values[path])]
    worse = "so no trial has its own values, and the best may be worse than they are"
    left_open = [path for path in apart if values[path] is None]
    if left_open:
        yield (f"the recipe leaves {all_of(left_open)} open, which a run settles as it begins, {worse}; write a value of "
               "those that are tried to have it tried first")
    said = [f"{path} ({short(flow(values[path]), 80)})" for path in apart if values[path] is not None]
    if said:
        yield f"the recipe's own {all_of(said)} {'is' if len(said) == 1 else 'are'} not among what is tried, {worse}"


def _defaults(spec: ObjectiveSpec) -> dict[str, Any]:
    """The options that an objective has where nothing is said, as a recipe would say them."""
    made = objectives.term(spec).objective
    own = {name: one.default for name, one in options_model(type(made)).model_fields.items() if not one.is_required()}
    # whose default hangs on other options is kept by its name as it was settled
    settled = {name: vars(made).get(name) if default is None else default for name, default in own.items()}
    return {name: one.plain() if isinstance(one, Schedule) else to_jsonable_python(one, fallback=str)
            for name, one in settled.items()}


def _at(plain: Any, path: str) -> Any:
    for step in field_at(path):
        if isinstance(step, int):
            plain = plain[step] if isinstance(plain, list) and step < len(plain) else None
        else:
            plain = plain.get(step) if isinstance(plain, dict) else None
    return plain
