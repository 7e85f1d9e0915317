"""Whether student and baseline differ by more than chance: tests that assume nothing of how anything is distributed.

If what a student learns from makes no difference, its name and the baseline's could be exchanged within every pair:

- **over seeds**: both models of a seed (the same start, the same order of the data). Every way to exchange some of n pairs is
  as likely, so the test is exact, and with n seeds p is at least 2 / 2^n: 0.25 with three, below 0.05 only from six on. It
  says whether other trainings would come out alike, on these examples.
- **over examples**: what both models answer to an example, for all seeds at once, at random. It says whether other examples
  would come out alike, for these trainings.

Only where both are small does the difference hold for other trainings and other examples (an intersection-union test:
whoever asks both at 5 % is wrong in at most 5 of 100).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stilla.evaluate.quality import CHUNK, weighted
from stilla.scores import PairedTest
from stilla.tasks.answers import Metric, Statistics

ALL = 14
"""Seeds up to which every way to exchange them is tried: 16,384."""

_ROUNDING = 1e-12
"""Of a difference: as large as the one that was found is what only rounding tells apart."""


def over_seeds(differences: Float[NDArray[np.float64], "seeds"], seed: int = 0) -> PairedTest | None:
    """The sign-flip test of the mean difference; None of a single seed, which says nothing of others."""
    seeds = len(differences)
    if seeds < 2:
        return None
    if seeds <= ALL:
        signs = 1.0 - 2.0 * ((np.arange(2**seeds)[:, None] >> np.arange(seeds)) & 1)
        return PairedTest(float(_as_large(signs @ differences, differences.sum()).mean()), 2.0 ** (1 - seeds), seeds)
    generator = np.random.default_rng((seed, seeds))
    signs = generator.choice((-1.0, 1.0), (2**ALL - 1, seeds))
    return _of_draws(signs @ differences, differences.sum(), seeds)


def over_examples(
    metric: Metric, student: Sequence[Statistics], baseline: Sequence[Statistics], *, draws: int = 1000, seed: int = 0
) -> PairedTest | None:
    """The permutation test of the mean difference over seeds; None where it is not defined.

    `student`, `baseline`: what the metric needs of every example, a seed each.
    """
    examples = len(student[0])
    found = float(np.mean([metric.of(ours) - metric.of(theirs) for ours, theirs in zip(student, baseline)]))
    if not np.isfinite(found):
        return None
    measures = [weighted(metric, joined(ours, theirs)) for ours, theirs in zip(student, baseline)]
    generator = np.random.default_rng((seed, examples))
    rows, drawn = max(1, CHUNK // (2 * examples)), []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for start in range(0, draws, rows):
            kept = generator.integers(0, 2, (min(rows, draws - start), examples)).astype(np.float64)
            # each example counts once for either, its own answer or the other's
            ours, theirs = (np.concatenate(one, axis=1) for one in ((kept, 1 - kept), (1 - kept, kept)))
            drawn.append(np.mean([measure(ours) - measure(theirs) for measure in measures], axis=0))
    return _of_draws(np.concatenate(drawn), found, examples)


def joined(one: Statistics, other: Statistics) -> Any:
    """The statistics of both, one behind the other."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.concatenate([one, other])
    return [*one, *other]


def _of_draws(drawn: NDArray[np.float64], found: float, pairs: int) -> PairedTest:
    """The arrangement that was found is one of those that are as likely, so p is never 0."""
    drawn = drawn[np.isfinite(drawn)]
    least = 1 / (1 + len(drawn))
    return PairedTest(float((1 + _as_large(drawn, found).sum()) * least), least, pairs)


def _as_large(drawn: NDArray[np.float64], found: float) -> NDArray[np.bool_]:
    large: NDArray[np.bool_] = np.abs(drawn) >= abs(found) - _ROUNDING * max(1.0, abs(found))
    return large
