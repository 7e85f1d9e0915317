"""Metrics with bootstrap intervals, paired between subjects, over several seeds.

Every subject, metric and seed is measured on the *same* resamples of the examples, so the difference of two
subjects on each resample is the paired bootstrap of their difference (Efron & Tibshirani 1993, ch. 13).

With several seeds the value is their mean. Its interval has two sources: the examples, resampled for all
seeds at once, and the seeds. Drawing seeds with replacement as well (the plain hierarchical bootstrap) is too
optimistic for the two to five seeds that people can pay: where training varies more than the examples do, its
nominal 95 % intervals cover 69 % (two seeds), 81 % (three), 87 % (five), simulated. So the seeds' part is
drawn from Student's t with the seeds' own degrees of freedom, scaled by the spread between seeds beyond what
the examples explain: 92 to 97 % with three or five seeds, 89 to 97 % with two. A test repeats part of this.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import sparse

from stilla.errors import StillaError
from stilla.scores import Interval
from stilla.tasks.answers import Metric, Statistics

Name = TypeVar("Name", bound=Hashable)

Measure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(resamples, examples) how often each example was drawn -> (resamples,) the metric on each resample."""

CHUNK = 2**22
"""Weights held at a time: 32 MB."""


@dataclass(frozen=True)
class Resampling:
    """So many draws of `examples` examples with replacement; the same draws each time they are walked."""

    examples: int
    count: int = 1000
    seed: int = 0

    def weights(self) -> Iterator[Float[npt.NDArray[np.float64], "chunk examples"]]:
        """How often each example was drawn, some resamples at a time."""
        generator = np.random.default_rng(self.seed)
        rows = max(1, CHUNK // self.examples)
        for start in range(0, self.count, rows):
            size = min(rows, self.count - start)
            drawn = generator.integers(0, self.examples, (size, self.examples))
            drawn += self.examples * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * self.examples)
            yield counts.reshape(size, self.examples).astype(np.float64)

    def sample(self, measures: Mapping[Name, Measure]) -> dict[Name, NDArray[np.float64]]:
        """(resamples,) values of every measure on the same resamples."""
        found: dict[Name, list[NDArray[np.float64]]] = {name: [] for name in measures}
        # a class that a resample happens to miss is no news
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for weights in self.weights():
                for name, measure in measures.items():
                    found[name].append(measure(weights))
        return {name: np.concatenate(parts) for name, parts in found.items()}


@dataclass(frozen=True, eq=False)
class Sampled:
    """A metric of one subject: its value per seed, and per seed on every resample of the examples.

    `range`: between which values the metric lies. Student's t of two seeds knows nothing of it.
    """

    values: Float[npt.NDArray[np.float64], "seeds"]
    resamples: Float[npt.NDArray[np.float64], "seeds resamples"]
    range: tuple[float, float] = (-math.inf, math.inf)

    @property
    def value(self) -> float:
        return float(self.values.mean())

    def __sub__(self, other: Sampled) -> Sampled:
        """The paired difference, seed by seed; one with a single seed is paired with every seed of the other.

        Raises:
            StillaError: two numbers of seeds, neither of them one.
        """
        ours, theirs = len(self.values), len(other.values)
        if ours != theirs and 1 not in (ours, theirs):
            raise StillaError(f"a difference of {ours} seeds and {theirs} seeds: expected as many, or one")
        span = (self.range[0] - other.range[1], self.range[1] - other.range[0])
        return Sampled(self.values - other.values, self.resamples - other.resamples, span)

    def __mul__(self, factor: float) -> Sampled:
        low, high = sorted(factor * end if factor else 0.0 for end in self.range)
        return Sampled(self.values * factor, self.resamples * factor, (low, high))

    @property
    def variance(self) -> float:
        """Of the mean over seeds, by the examples alone."""
        drawn = self.resamples.mean(axis=0)
        drawn = drawn[np.isfinite(drawn)]
        return float(drawn.var()) if len(drawn) else math.nan

    def error(self, least: float = 0.0) -> float:
        """The standard error of the mean over seeds: of the examples (their `variance` at `least` so much) and the seeds."""
        return math.sqrt(max(self.variance, least) + self._between() / len(self.values))

    def drawn(self, seed: int = 0) -> Float[npt.NDArray[np.float64], "resamples"]:
        """The mean over seeds as it might have come out with other examples and other trainings."""
        drawn: NDArray[np.float64] = self.resamples.mean(axis=0) + self._between_seeds(seed)
        return drawn

    def interval(self, seed: int = 0) -> Interval:
        """The mean over seeds with its 95 % interval (see the module)."""
        drawn = self.drawn(seed)
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Interval(self.value, self.value, self.value)
        low, high = np.percentile(drawn, (2.5, 97.5)).clip(*self.range)
        return Interval(self.value, float(low), float(high))

    def _between_seeds(self, seed: int) -> NDArray[np.float64]:
        """(resamples,) draws of the error that comes from having trained only so many times."""
        seeds, count = self.resamples.shape
        if seeds == 1:
            return np.zeros(count)
        # a stream of its own, apart from the one that drew the examples
        generator = np.random.default_rng((seed, seeds))
        drawn: NDArray[np.float64] = generator.standard_t(seeds - 1, count) * np.sqrt(self._between() / seeds)
        return drawn

    def _between(self) -> float:
        """The variance of one training beyond what the examples explain; 0 where a single one says nothing of it."""
        seeds = len(self.values)
        if seeds == 1:
            return 0.0
        deviations = self.resamples - self.resamples.mean(axis=0)
        # what seeds differ by on these examples alone; the resampling of examples has already counted it
        by_examples = float(np.nanvar(deviations, axis=1).mean()) * seeds / (seeds - 1)
        return max(0.0, float(self.values.var(ddof=1)) - by_examples)


@dataclass(frozen=True, eq=False)
class Asked:
    """One metric of one subject: the statistics of each of its seeds, all on the same examples.

    `rows`: measure some of the examples only, still on the resamples of all.
    """

    metric: Metric
    seeds: Sequence[Statistics]
    rows: Int[NDArray[np.int64], "rows"] | None = None

    def of(self, seed: int) -> Statistics:
        return self.seeds[seed] if self.rows is None else some(self.seeds[seed], self.rows)


def bootstrap(asked: Mapping[Name, Asked], resampling: Resampling) -> dict[Name, Sampled]:
    """Every metric of every subject on the same resamples, so that any two may be subtracted."""
    measures: dict[tuple[Name, int], Measure] = {
        (name, seed): _on_rows(weighted(one.metric, one.of(seed)), one.rows)
        for name, one in asked.items() for seed in range(len(one.seeds))}
    samples = resampling.sample(measures)
    return {name: Sampled(
        values=np.array([one.metric.of(one.of(seed)) for seed in range(len(one.seeds))], dtype=np.float64),
        resamples=np.stack([samples[name, seed] for seed in range(len(one.seeds))]),
        range=one.metric.range,
    ) for name, one in asked.items()}


def some(statistics: Statistics, rows: Int[NDArray[np.int64], "rows"]) -> Statistics:
    """The statistics of some of the examples."""
    return statistics[rows] if isinstance(statistics, np.ndarray) else [statistics[row] for row in rows]


def _on_rows(measure: Measure, rows: NDArray[np.int64] | None) -> Measure:
    return measure if rows is None else lambda weights: measure(weights[:, rows])


def weighted(metric: Metric, statistics: Statistics) -> Measure:
    """The metric as a function of how often each example counts; a matrix product where it can be."""
    if metric.from_sums is not None:
        return _by_sums(metric.from_sums, np.asarray(statistics))
    assert metric.from_list is not None
    return _by_list(metric.from_list, statistics)


def _by_sums(from_sums: Callable[[NDArray[Any]], float], statistics: NDArray[Any]) -> Measure:
    table = statistics.reshape(len(statistics), -1)
    # one-hot counts of many classes are nearly all zeros: 20 times faster so at 150 classes
    few = np.count_nonzero(table) < 0.1 * table.size
    transposed = sparse.csr_array(table.T).astype(np.float64) if few else table.T.astype(np.float64)

    def values(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = (transposed @ weights.T).T
        return np.array([from_sums(row) for row in sums], dtype=np.float64)

    return values


def _by_list(from_list: Callable[[Any, NDArray[np.int64]], float], statistics: Statistics) -> Measure:
    def values(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([from_list(statistics, row.astype(np.int64)) for row in weights], dtype=np.float64)

    return values
