"""The headline metric on parts of what was measured: slices of a split, and other data beside it.

Whoever looks at many parts finds one that is worst, by chance alone. So a part's gap between student and teacher is held
against that on the whole, and the intervals of all these differences are widened together: to the 95th percentile of the
largest of them, each in its own standard errors, over the resamples (a max-T bootstrap: Westfall & Young 1993, sec. 2). Nor
is a standard error less than that of as many examples from the whole: where the two models happen to agree on all of 30
examples, they do not always. Simulated with 4 to 50 parts that do not differ, of 30 examples and more, one was called worse
or better in 1 to 3 of 100 runs; with 20 that are looked at one by one, in more than 40.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stilla.data import SHIFTED
from stilla.evaluate.quality import Sampled
from stilla.evaluate.slices import Slice
from stilla.evaluate.split import Split
from stilla.scores import Interval, Part
from stilla.tasks.answers import Metric

FEWEST = 30
"""Examples of a part that is compared; of fewer, the values alone are given."""


def sliced(split: Split, metric: Metric, slices: Sequence[Slice], seed: int) -> tuple[Part, ...]:
    """Slices of the headline split, whose rows are places in its data; without those in which nothing was measured."""
    sitting = split.sitting(metric)
    if sitting is None:
        return ()
    # the exam may have left examples out
    places = [np.flatnonzero(np.isin(sitting.keys, one.rows)) for one in slices]
    sampled = sitting.on_rows(metric, {str(number): rows for number, rows in enumerate(places) if len(rows)})
    found = [_Found(one.column, one.name, len(rows), {subject: sampled[subject, str(number)] for subject in sitting.subjects})
             for number, (one, rows) in enumerate(zip(slices, places)) if len(rows)]
    return _compared(found, split.gap(metric), split.examples, seed, within=True)


def shifted(splits: Mapping[str, Split], headline: Split, metric: Metric, seed: int) -> tuple[Part, ...]:
    """Whole splits of other data, by their names, held against the headline split."""
    found = [_Found("", name.removeprefix(SHIFTED), sitting.examples,
                    {subject: sitting.sampled[subject, metric.name] for subject in sitting.subjects})
             for name, split in splits.items() if (sitting := split.sitting(metric)) is not None and split.concerns(metric)]
    return _compared(found, headline.gap(metric), headline.examples, seed, within=False)


def simultaneous(differences: Mapping[int, Sampled], least: Mapping[int, float], seed: int) -> dict[int, Interval]:
    """Intervals that hold at once in 95 of 100 cases. `least`: of each difference's variance over examples."""
    errors = {name: (one.error(), one.error(least[name])) for name, one in differences.items()}
    # each with other draws of the seeds' chance: nothing says that a training is off on all parts alike
    drawn = [np.abs(one.drawn(seed + name) - one.value) / errors[name][0] for name, one in differences.items()
             if errors[name][0] > 0]
    if not drawn:
        return {}
    largest = np.max(drawn, axis=0)
    width = float(np.percentile(largest[np.isfinite(largest)], 95))
    return {name: Interval(one.value, one.value - width * errors[name][1], one.value + width * errors[name][1])
            for name, one in differences.items()}


@dataclass(frozen=True)
class _Found:
    """`values`: by subject."""

    column: str
    name: str
    examples: int
    values: Mapping[str, Sampled]

    def minus(self, other: str) -> Sampled | None:
        """Student minus another, where both are defined and there are enough examples."""
        both = [self.values[name] for name in ("student", other) if name in self.values and _is_defined(self.values[name])]
        return both[0] - both[1] if len(both) == 2 and self.examples >= FEWEST else None


def _compared(
    found: Sequence[_Found], whole: Sampled | None, examples: int, seed: int, *, within: bool
) -> tuple[Part, ...]:
    """`whole`: student minus teacher on so many examples, the parts' own among them if these are `within`; None without a
    teacher."""
    gaps = {number: gap for number, one in enumerate(found) if (gap := one.minus("teacher")) is not None}
    beyond = dict[int, Interval]()
    if whole is not None:
        against = {number: gap - whole for number, gap in gaps.items()
                   if not (within and found[number].examples == examples)}
        least = {number: whole.variance * (examples / found[number].examples + (-1 if within else 1)) for number in against}
        beyond = simultaneous(against, least, seed)
    parts = []
    for number, one in enumerate(found):
        gap, difference = gaps.get(number), one.minus("baseline")
        parts.append(Part(
            one.column, one.name, one.examples,
            {subject: _interval(value, one.examples, seed) for subject, value in one.values.items() if _is_defined(value)},
            None if gap is None else gap.interval(seed), None if difference is None else difference.interval(seed),
            beyond.get(number)))
    return tuple(parts)


def _is_defined(sampled: Sampled) -> bool:
    return bool(np.isfinite(sampled.values).all())


def _interval(sampled: Sampled, examples: int, seed: int) -> Interval:
    return sampled.interval(seed) if examples >= FEWEST else Interval(*[sampled.value] * 3)
