"""All that can be known before training: every problem at once, what was chosen, and what the run will cost.

Names and shapes are looked at before torch is imported; then the data, the models and how they fit, on the way that
a run would go. Local models are loaded as a run would load them; those that would be downloaded are left to the run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stilla.check.found import Found
from stilla.check.places import (
    lacking_examples,
    look_at_code,
    look_at_output,
    missing_packages,
    told_secrets,
    trainings,
    unknown_in,
    unknown_names,
)
from stilla.check.spaces import cost_in_words, look_at_values, of_a_trial, wrong_places
from stilla.recipe import Recipe
from stilla.recipe.file import Draft
from stilla.secrets import without_secrets
from stilla.stages.transfer import of_runs

if TYPE_CHECKING:
    from stilla.check.estimate import Estimate

logger = logging.getLogger(__name__)

__all__ = ["Findings", "check", "check_draft", "refuse_known_problems", "refuse_wrong_names", "unknown_names"]


@dataclass(frozen=True)
class Findings:
    """`problems` keep a run from working. `notes`: what was chosen, and what a person may want to know.

    `estimate` is missing where there are problems, and where a model would have to be downloaded first.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None = None


def check(recipe: Recipe) -> Findings:
    """Everything about a recipe of the right shape."""
    return check_draft(Draft(recipe, ()))


def check_draft(draft: Draft) -> Findings:
    """Everything about a recipe, problems of its shape included; the rest of it is looked at all the same."""
    found = Found(list(draft.problems))
    if draft.recipe is None:
        return Findings(_clean([*found.problems, *unknown_in(draft.plain)]), ())
    recipe = _of_runs(draft.recipe, found)
    look_by_itself(recipe, found)
    from stilla.check.terms import wrong_terms
    from stilla.check.way import look

    ready = look(recipe, found)
    if not found.problems:
        look_at_values(recipe, found, look, wrong_terms)
    if ready is None or found.problems:
        return Findings(_clean(found.problems), _clean(found.notes))
    from stilla.check.estimate import estimate

    def cost_of(recipe: Recipe) -> Estimate:
        return estimate(recipe, ready.task, ready.splits, ready.teacher, ready.student, ready.prepared, ready.per_example,
                        ready.pool, ready.writing, ready.to_propose, ready.to_mine)

    cost = cost_of(ready.recipe)
    found.problems += cost.problems(Path(recipe.output))
    if recipe.search is not None:
        search = recipe.search
        found.notes.append(cost_in_words(search, cost_of(of_a_trial(ready.recipe, search.seeds))))
    return Findings(_clean(found.problems), _clean([*found.notes, *cost.notes()]), cost)


def _of_runs(recipe: Recipe, found: Found) -> Recipe:
    """The recipe with the students of the runs that it names as models."""
    with found.attempt():
        return of_runs(recipe)
    return recipe


def look_by_itself(recipe: Recipe, found: Found) -> None:
    """What a recipe says of names, packages, code and its output, without data and models."""
    found.problems += [*unknown_names(recipe), *missing_packages(recipe), *lacking_examples(recipe), *wrong_places(recipe)]
    look_at_code(recipe, found)
    look_at_output(recipe, found)


def _clean(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(without_secrets, lines))


def refuse_wrong_names(recipe: Recipe) -> None:
    """What needs neither torch nor seconds.

    Raises:
        RecipeError: names in no table, packages that are missing, a run folder with something else in it; at once.
    """
    found = Found([*told_secrets(recipe), *unknown_names(recipe), *missing_packages(recipe), *lacking_examples(recipe),
                   *wrong_places(recipe)])
    look_at_output(recipe, found)
    if found.problems:
        raise found.error()


def refuse_known_problems(recipe: Recipe) -> None:
    """What every run begins with.

    Raises:
        StillaError: all that is known to keep it from working, at once.
    """
    refuse_wrong_names(recipe)
    from stilla.check.terms import wrong_terms
    from stilla.check.way import look
    from stilla.runtime.processes import processes
    from stilla.training.spreading import alone_problems

    found = Found([])
    recipe = _of_runs(recipe, found)
    look(recipe, found)
    if not found.problems:
        look_at_values(recipe, found, look, wrong_terms)
    found.problems += [problem for place, training in trainings(recipe) for problem in
                       alone_problems(training.trainer, f"{place}.trainer", processes().num_processes)]
    if found.problems:
        raise found.error()
    for note in found.warned:
        logger.warning("%s", note)
