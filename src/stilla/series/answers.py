"""Where the teacher's answers lie that several runs ask for: by all that they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stilla.runtime.differences import fingerprint
from stilla.stages import cache_choice, caching
from stilla.stages.stages import Stages


def with_shared_cache(stages: Stages, shared: Path) -> Stages:
    """The same with one cache, below `shared`, for all runs that ask the same; unless the recipe names one."""
    recipe = stages.recipe
    if recipe.cache.form == "none" or recipe.cache.path is not None:
        return stages
    task = stages.place.task
    each = stages.asked(task)
    asked: dict[str, Any] = {"asked": each.get("", each), **caching.settings(recipe.cache)}
    edges = any(one.objective.needs_edges for one in cache_choice.all_terms(recipe, task))
    if any(cache_choice.reads(recipe, task)) or edges:  # what of it is compared follows from the student
        asked |= {"student": recipe.student.model_dump(mode="json"),
                  "objectives": [[one.model_dump(mode="json") for one in stage.objectives or ()] for stage in recipe.distill]}
    section = recipe.cache.model_copy(update={"path": str(shared / f"cache-{fingerprint(asked)[:16]}")})
    return stages.with_recipe(recipe.model_copy(update={"cache": section}))
