"""When a search is over and why, and what its end leaves open: was there enough of everything?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log

from stilla.errors import counted
from stilla.recipe import Range, Recipe, Search, Until
from stilla.report import numbers
from stilla.scores import metric_title
from stilla.series.own import why_no_trial_has_them
from stilla.series.space import Space
from stilla.series.trials import Reached, Trial, best_of, in_order, since_better

EDGE = 0.05
"""Share of a range within which a value lies at its end."""


def why_over(search: Search, space: Space, trials: Sequence[Trial]) -> str | None:
    """Why no further trial begins, in words; None where one does. Trials that are being made count as used."""
    done, best = in_order(trials), best_of(trials)
    if best is not None and (reached := _target_reached(search, best)):
        return reached
    if search.patience is not None and len(done) > search.patience and since_better(trials) >= search.patience:
        return f"{counted(search.patience, 'trial')} in a row brought nothing better"
    if search.most is not None and len(trials) >= search.most:
        return "the only trial was made" if search.most == 1 else f"all {search.most:,} trials were made"
    spent = sum(one.reached.seconds for one in done if one.reached is not None)
    if search.minutes is not None and spent >= 60 * search.minutes:
        return f"the trials took {numbers.duration(spent)} together, of {numbers.duration(60 * search.minutes)}"
    if len(trials) >= space.size:
        return f"all {len(trials):,} combinations were tried"
    return None


def _target_reached(search: Search, best: Trial) -> str | None:
    assert best.reached is not None
    until, made = search.until, best.reached
    if until is None:
        return None
    if until.retention is not None and made.retention is not None and made.retention >= until.retention:
        return (f"trial {best.number} reached a retention of {numbers.percent(made.retention)}, of "
                f"{numbers.percent(until.retention)} that were asked for")
    if until.quality is not None and made.score >= (until.quality if made.higher_is_better else -until.quality):
        return (f"trial {best.number} reached {_said(made.metric, made.quality.value)}, of "
                f"{numbers.quality(made.metric, until.quality)} that were asked for")
    return None


def remarks(recipe: Recipe, space: Space, trials: Sequence[Trial]) -> Iterator[str]:
    """What may still be gained, and what the numbers cannot say."""
    search, best = recipe.search, best_of(trials)
    assert search is not None
    if best is None or best.reached is None:
        return
    made = best.reached
    if search.until is not None and _target_reached(search, best) is None:
        yield _missed(search.until, made)
    yield from why_no_trial_has_them(recipe, space)
    order = [one.number for one in in_order(trials)]
    if len(order) > 3 and best.number in order[-max(1, len(order) // 4):] and len(trials) < space.size:
        yield "the best came among the last trials: more of them may find better (raise `trials`, the search goes on)"
    yield from (f"{path}: the best value ({value:g}) lies at the {end} end of what is tried; widen it" for path, value, end in
                _at_an_end(space, trials, best))
    if "student" in made.growing:
        yield f"trial {best.number}: the student's training {made.growing['student']}"
    told = [one.reached.growing for one in trials if one.reached is not None]
    taught = [one["teacher"] for one in told if "teacher" in one]
    if taught:  # by one trial for all
        yield f"the teacher's training {taught[0]}"
    close = [one.number for one in in_order(trials) if one.reached is not None and one is not best
             and one.reached.score >= (made.quality.low if made.higher_is_better else -made.quality.high)]
    if close:
        yield (f"{counted(len(close), 'other trial')} lie{'' if len(close) > 1 else 's'} within the best "
               "one's interval: that they are worse is not measured")
    yield (f"the best of {len(order)} is chosen by its validation {metric_title(made.metric)}, which flatters it; test data, "
           "which no trial has seen, say what it is worth")
    failed = [one for one in trials if one.problem is not None]
    if failed:
        yield f"{counted(len(failed), 'trial')} could not be made; the first: {failed[0].problem}"


def _missed(until: Until, made: Reached) -> str:
    if until.retention is None:
        asked, there = numbers.quality(made.metric, until.quality or 0.0), _said(made.metric, made.quality.value)
    else:
        asked = numbers.percent(until.retention)
        there = "a retention that is not defined here" if made.retention is None else numbers.percent(made.retention)
    return f"the target ({asked}) was not reached: the best has {there}"


def _at_an_end(space: Space, trials: Sequence[Trial], best: Trial) -> Iterator[tuple[str, float, str]]:
    """Not of a field with which trials elsewhere are just as good: nothing speaks for its end."""
    equals = [one for one in trials if one.reached is not None and best.reached is not None
              and one.reached.score == best.reached.score]
    for path, values in space.values.items():
        if isinstance(values, Range):
            ends = {_end_at(values, one.values[path]) for one in equals}
            if len(ends) == 1 and (end := ends.pop()) is not None:
                yield path, best.values[path], end


def _end_at(values: Range, value: float) -> str | None:
    scale: Callable[[float], float] = log if values.log else float
    where = (scale(value) - scale(values.low)) / (scale(values.high) - scale(values.low))
    return "lower" if where <= EDGE else "upper" if where >= 1 - EDGE else None


def _said(metric: str, value: float) -> str:
    return f"{metric_title(metric)} {numbers.quality(metric, value)}"
