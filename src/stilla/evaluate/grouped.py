"""What parts for groups of examples are worth: wins, ties and losses against the shared student, by group and by example.

A group wins or loses where the difference of the headline metric is beyond chance, for all groups at once (`parts`); else it
is a tie. An example wins where the metric of it alone is better, and so on; metrics that are no sums say nothing of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stilla.errors import agreeing, counted, singular
from stilla.evaluate.parts import FEWEST, simultaneous
from stilla.evaluate.split import Sitting, Split
from stilla.scores import PERSONAL, Cost, Group, Grouped, Interval
from stilla.tasks.answers import Metric

_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Grouping:
    """Whose examples of the headline split have a part. by: the column. rows: of each group, their places in the split.
    learnt: from how many training examples each part was. numbers, size: of one part, and its bytes."""

    by: str
    rows: Mapping[str, Int[NDArray[np.int64], "rows"]]
    learnt: Mapping[str, int]
    numbers: int
    size: int

    def beside(self, shared: Cost) -> Cost:
        """Of the shared student with one part in memory beside it; its speed is not measured."""
        parameters = None if shared.parameters is None else shared.parameters + self.numbers
        return Cost(parameters, None if shared.bytes is None else shared.bytes + self.size, tokens=shared.tokens)


def grouped(split: Split, metric: Metric, grouping: Grouping, seed: int) -> Grouped | None:
    """None where the parts were not asked what the metric judges (they write no texts)."""
    sitting = split.sitting(metric)
    if sitting is None or not split.has(PERSONAL, metric):
        return None
    places = {name: np.flatnonzero(np.isin(sitting.keys, rows)) for name, rows in grouping.rows.items()}
    places = {name: rows for name, rows in places.items() if len(rows)}
    whole = split.sampled[PERSONAL, metric.name] - split.sampled["student", metric.name]
    sampled = sitting.on_rows(metric, places)
    both = {name: (sampled["student", name], sampled[PERSONAL, name]) for name in places}
    names = list(places)
    told = {number: both[name][1] - both[name][0] for number, name in enumerate(names)
            if len(places[name]) >= FEWEST and all(np.isfinite(one.values).all() for one in both[name])}
    least = {number: whole.variance * split.examples / len(places[names[number]]) for number in told}
    # where no resample changes anything, the differences are as they are
    beyond = simultaneous(told, least, seed) or {number: one.interval(seed) for number, one in told.items()}
    found = tuple(
        Group(name, grouping.learnt[name], len(places[name]), both[name][0].interval(seed), both[name][1].interval(seed),
              beyond.get(number), _outcome(metric, beyond.get(number))) for number, name in enumerate(names))
    own = np.unique(np.concatenate(list(places.values()))) if places else np.zeros(0, np.int64)
    won, tied, lost = _outcomes(metric, sitting, own)
    return Grouped(grouping.by, found, split.examples - len(own), sitting.exam.units, won, tied, lost,
                   whole.interval(seed), len(grouping.learnt), grouping.numbers, grouping.size)


def _outcomes(metric: Metric, sitting: Sitting, rows: Int[NDArray[np.int64], "rows"]) -> tuple[int | None, ...]:
    """How many of these examples win, tie and lose, by the metric of each alone, mean of seeds."""
    if metric.from_sums is None:
        return None, None, None
    student, personal = (np.mean([alone(metric, np.asarray(one)[rows]) for one in sitting.statistics(name, metric)], axis=0)
                         for name in ("student", PERSONAL))
    better = (personal - student) * (1 if metric.higher_is_better else -1)
    won, lost = int((better > _ROUNDING).sum()), int((better < -_ROUNDING).sum())
    return won, len(rows) - won - lost, lost


def alone(metric: Metric, statistics: NDArray[np.float64]) -> Float[NDArray[np.float64], "examples"]:
    """The metric of every example by itself; 0 where it says nothing of a single one."""
    assert metric.from_sums is not None
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.array([metric.from_sums(one) for one in statistics], np.float64))


def remarks(found: Grouped, examples: int) -> list[str]:
    """What a reader of the numbers has to know of the parts."""
    size = f"{found.size / 1e6:.3g} MB" if found.size >= 1e5 else f"{found.size / 1e3:.3g} kB"
    cold = f"{found.cold:,} of {counted(examples, 'example')} {agreeing(found.cold, 'is')} of others, and answered by"
    return [f"personal: {counted(found.parts, 'value')} of {found.by} with a part of {found.numbers:,} numbers ({size}) "
            f"each beside the shared student; {cold} the shared student"
            f"{_in_numbers(found)}"]


def _in_numbers(found: Grouped) -> str:
    """By group and by example; nothing where the metric says nothing of a single one."""
    if found.won is None or found.tied is None or found.lost is None:
        return ""
    told = [one.outcome for one in found.groups if one.outcome]
    win, tie, loss = (told.count(one) for one in ("win", "tie", "loss"))
    of_groups = f"; of {counted(len(told), 'value')} compared {win} {agreeing(win, 'wins')} beyond chance, " \
                f"{tie} {agreeing(tie, 'ties')} and {loss} {agreeing(loss, 'loses')}" if told else ""
    return (f"{of_groups}; one by one {counted(found.won, singular(found.units), 'wins')}, {found.tied:,} "
            f"{agreeing(found.tied, 'ties')} and {found.lost:,} {agreeing(found.lost, 'loses')}")


def _outcome(metric: Metric, difference: Interval | None) -> str:
    if difference is None:
        return ""
    if not difference.excludes_zero():
        return "tie"
    return "win" if (difference.value > 0) is metric.higher_is_better else "loss"
