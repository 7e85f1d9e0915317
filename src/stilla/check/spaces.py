"""What a search cannot try, known before anything is trained: fields that are not there, values that they do not take."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stilla.check.found import Found
from stilla.check.places import objectives, unknown_names
from stilla.errors import counted
from stilla.recipe import Range, Recipe, Search
from stilla.recipe.file import with_values
from stilla.recipe.overrides import field_at
from stilla.recipe.yaml import flow
from stilla.report.numbers import duration, durations

if TYPE_CHECKING:
    from stilla.check.estimate import Estimate
    from stilla.tasks.answers import Metric

SAID_IN = "search.over"
_MEASURED = "by it all trials are compared, so it has to be the same for all"
FIXED = {
    "task": "the same for all trials", "output": "every trial has a folder of its own in it",
    "search": "it cannot search for itself", "evaluate": _MEASURED, "export": "trials export nothing",
    "seed": "a lucky seed is no better student; `search.seeds` trains each trial from several",
    "allow_weak_teacher": "the same for all trials", "cache.path": "trials find their caches by themselves",
    **dict.fromkeys(("data.train", "data.config", "data.revision"), "validation data may be drawn from it, and " + _MEASURED),
    **dict.fromkeys(("data.validation", "data.broken"), _MEASURED),
    **dict.fromkeys(("data.test", "data.shifted"), "no trial ever looks at it"),
}
"""Fields, with all that is in them, that no search tries."""


@dataclass(frozen=True)
class Corner:
    """One value of one field: of a list each, of a range its ends."""

    path: str
    value: Any

    def __str__(self) -> str:
        return f"{self.path}={flow(self.value)}"


def corners(search: Search) -> Iterator[Corner]:
    for path, values in search.over.items():
        yield from (Corner(path, value) for value in
                    ((values.low, values.high) if isinstance(values, Range) else values))


def wrong_places(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe's search by its shape, without torch."""
    search = recipe.search
    if search is None:
        return []
    found = [f"{SAID_IN}.{path}: {why}" for path in search.over if (why := _why_not(path))]
    found += _within_another(search)
    if importlib.util.find_spec("optuna") is None:
        found.append('search: needs optuna, which is not installed: pip install "stilla[search]"')
    if recipe.teacher.api is not None:
        found.append("search: a trial is held against its teacher, and one behind an address cannot be measured beside it. "
                     "Run the recipe with each of the values; with a common teacher.api.store nothing is asked twice")
    known = set(unknown_names(recipe))
    for corner in corners(search):
        if not _why_not(corner.path):
            draft = with_values(recipe, {corner.path: corner.value}, SAID_IN)
            found += draft.problems
            if draft.recipe is not None and not draft.problems:
                found += [f"{SAID_IN}: {one}" for one in unknown_names(draft.recipe) if one not in known]
    return list(dict.fromkeys(found))


def look_at_values(
    recipe: Recipe, found: Found, look: Callable[[Recipe, Found], object], terms: Callable[[Recipe], list[str]]
) -> None:
    """Each value by itself on the way that a run would go, of a recipe that has no problems. `look`: at a whole recipe.
    `terms`: what is wrong with its trainings and objectives, which no model has to be loaded for."""
    if recipe.search is None:
        return
    before = set(found.problems)
    for corner in corners(recipe.search):
        changed = with_values(recipe, {corner.path: corner.value}, SAID_IN).complete()
        alone = Found(terms(changed))
        if not alone.problems and not corner.path.startswith("distill"):
            look(changed, alone)
        found.problems += [f"{SAID_IN}: {corner}: {one}" for one in alone.problems if one not in before]


def takes_whole_numbers(recipe: Recipe, path: str, values: Range) -> bool:
    """Whether the field takes only whole numbers, where both ends of its range are such."""
    said = (values.low, values.high, 1 if values.step is None else values.step)
    if not all(isinstance(one, int) for one in said):
        return False
    draft = with_values(recipe, {path: values.low + 0.5}, SAID_IN)
    if draft.problems or draft.recipe is None:
        return True
    from stilla import objectives as kinds

    return any(kinds.problems(spec) for _, spec in objectives(draft.recipe))


def of_a_trial(recipe: Recipe, seeds: int) -> Recipe:
    """The recipe with nothing but students, from so many seeds, and what is needed to judge them."""
    evaluate = recipe.evaluate.model_copy(update={"baseline": False, "speed": False, "slices": (), "seeds": seeds})
    return recipe.model_copy(update={"evaluate": evaluate, "export": ()})


def cost_in_words(search: Search, cost: Estimate) -> str:
    """`cost`: of a trial with the recipe's own values."""
    each = [cost.seconds[name] for name in ("student", "evaluation")]
    low, high = sum(one.low for one in each), sum(one.high for one in each)
    said = f"search: one trial with the recipe's own values takes {durations(low, high)}"
    once = [name for name in cost.seconds if name not in ("student", "evaluation")]
    shared = f"; made once for all: {', '.join(once)}" if once else ""
    ends = "" if search.minutes is None else f"after {duration(60 * search.minutes)} of trials"
    most = min(math.inf if search.most is None else search.most, _combinations(search))
    if math.isinf(most):
        return f"{said}; no trial begins {ends}{shared}"
    end = f", and none begins {ends}" if ends else ""
    return f"{said}; at most {counted(int(most), 'trial', 'takes')} {durations(most * low, most * high)}{end}{shared}"


def _combinations(search: Search) -> float:
    """How many there are of lists of values; a range has as many as one likes."""
    return math.prod(math.inf if isinstance(values, Range) else len(values) for values in search.over.values())


def out_of_reach(recipe: Recipe, metrics: Sequence[Metric]) -> list[str]:
    """Of a search that ends at a value: why its metric, of these, never has such a one."""
    until = None if recipe.search is None else recipe.search.until
    metric = next((one for one in metrics if recipe.evaluate.metric in (None, one.name)), None)
    if until is None or until.quality is None or metric is None:  # a metric of no such name is refused elsewhere
        return []
    low, high = metric.range
    if low <= until.quality <= high:
        return []
    percent = f" Write {until.quality / 100:g} for {until.quality:g} %." if low <= until.quality / 100 <= high else ""
    return [f"search.until.quality: got {until.quality:g}; expected a value that `{metric.name}` can have: it goes from "
            f"{low:g} to {high:g}.{percent}"]


def _within_another(search: Search) -> list[str]:
    """Fields that lie in another one that is searched: of the two values the one would be lost in the other."""
    places = {path: field_at(path) for path in search.over}
    pairs = ((inner, outer) for inner, outer in itertools.permutations(places, 2)
             if places[inner][:len(places[outer])] == places[outer] and (places[inner] != places[outer] or inner < outer))
    return [f"{SAID_IN}: got {inner} beside {outer}, which "
            f"{'is the same field' if places[inner] == places[outer] else 'holds it'}; name one of the two"
            for inner, outer in pairs]


def _why_not(path: str) -> str | None:
    for field, why in FIXED.items():
        if path == field or path.startswith(f"{field}."):
            return f"cannot be searched: {why}"
    return None
