"""Whether a recipe's stages can choose the hardest of several forms of each example."""

from __future__ import annotations

from stilla.recipe import Cache, Recipe, Stage
from stilla.stages import cache_choice
from stilla.tasks.base import Prepared, Task
from stilla.training import hardest


def problems(recipe: Recipe, cache: Cache, task: Task, prepared: Prepared) -> list[str]:
    """Why they cannot, in words that say what to do. `cache`: with its form chosen."""
    found = []
    for number, stage in enumerate(recipe.distill):
        if stage.hardest is None:
            continue
        place = "distill" if len(recipe.distill) == 1 else f"distill[{number}]"
        found += [f"{place}.hardest: {problem}" for problem in _wrong(recipe, stage, stage.hardest, cache, task, prepared)]
    return found


def _wrong(recipe: Recipe, stage: Stage, many: int, cache: Cache, task: Task, prepared: Prepared) -> list[str]:
    if recipe.teacher.api is not None:
        return ["asks the teacher about forms that it has not seen, and one behind an address (teacher.api) is known by what "
                "it has said. Leave it out"]
    if recipe.data.each:
        return ["is of one task, and several are learnt here at once. Leave it out"]
    asks = any(one.objective.asks for one in cache_choice.terms_of(recipe, stage, task))
    found = hardest.problems(many, prepared, task, asks=asks)
    if cache.form in ("top_k", "samples"):
        found.append(f"compares whole distributions, and cache.form: {cache.form} stores a part of each. Use dense, or "
                     "cache: none")
    return found
