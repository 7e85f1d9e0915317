from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from stilla.evaluate.quality import Resampling, Sampled
from stilla.evaluate.ratios import ratio
from stilla.scores import Interval


def _normal(value: float, deviations: NDArray[np.float64]) -> Sampled:
    """A measured value whose resamples are normal around it."""
    return Sampled(np.array([value]), value + deviations[None])


def fieller(above: float, below: float, covariance: NDArray[np.float64]) -> tuple[float, float]:
    """The closed form (Fieller 1954) for two normal means."""
    z = norm.ppf(0.975)
    a = below**2 - z**2 * covariance[1, 1]
    b = -2 * (above * below - z**2 * covariance[0, 1])
    c = above**2 - z**2 * covariance[0, 0]
    root = math.sqrt(b**2 - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.slow
@pytest.mark.parametrize(("above", "below", "errors", "correlation"), [
    (0.04, 0.08, (0.01, 0.01), 0.6), (0.0, 0.08, (0.01, 0.015), 0.0), (-0.02, 0.05, (0.01, 0.0125), -0.3),
    (0.9, 0.95, (0.006, 0.005), 0.8)])
def test_of_normal_draws_the_interval_is_fiellers_closed_form(
    above: float, below: float, errors: tuple[float, float], correlation: float, rng: np.random.Generator
) -> None:
    covariance = np.array([[errors[0] ** 2, correlation * errors[0] * errors[1]],
                           [correlation * errors[0] * errors[1], errors[1] ** 2]])
    drawn = rng.multivariate_normal((0, 0), covariance, 100_000).T
    found = ratio(_normal(above, drawn[0]), _normal(below, drawn[1]))
    assert found is not None
    assert found.value == pytest.approx(above / below)
    low, high = fieller(above, below, covariance)
    near = 0.015 * (high - low)  # 100,000 draws put a percentile within 1 % of half the interval
    assert (found.low, found.high) == (pytest.approx(low, abs=near), pytest.approx(high, abs=near))


def _accuracy(hits: NDArray[np.bool_], seed: int = 0, resamples: int = 400) -> Sampled:
    weights = next(Resampling(hits.shape[1], resamples, seed).weights())
    return Sampled(hits.mean(1), hits @ weights.T / hits.shape[1], (0.0, 1.0))


def _models(
    rng: np.random.Generator, examples: int, seeds: int, by_seed: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Right or wrong of a teacher (90 % over all examples and trainings), students (86 %) and baselines (82 %)."""
    hard = rng.normal(size=examples)

    def said(count: int, level: float, spread: float) -> NDArray[np.bool_]:
        whole = math.sqrt(1.5 + spread**2)
        own = 0.5 * (rng.normal(size=examples) + rng.normal(size=(count, examples)))
        latent = hard + own + spread * rng.normal(size=(count, 1))
        return np.asarray(latent + norm.ppf(level) * whole > 0)

    return said(1, 0.90, 0.0), said(seeds, 0.86, by_seed), said(seeds, 0.82, by_seed)


def test_a_ratio_is_inside_just_where_no_difference_from_it_is_measured(rng: np.random.Generator) -> None:
    teacher, student, baseline = (_accuracy(one) for one in _models(rng, 2000, 3, 0.05))
    above, below = student - baseline, teacher - baseline
    found = ratio(above, below, seed=7)
    assert found is not None
    low, high = found.low, found.high
    for at, inside in ((low - 0.01, False), (low + 0.01, True), (high - 0.01, True), (high + 0.01, False)):
        assert (above - below * at).interval(7).excludes_zero() is not inside
    assert (above - below * found.low).interval(7).low == pytest.approx(0, abs=1e-9)
    assert (above - below * found.high).interval(7).high == pytest.approx(0, abs=1e-9)


def test_what_is_better_when_lower_has_the_same_ratio(rng: np.random.Generator) -> None:
    teacher, student, baseline = (_accuracy(one) for one in _models(rng, 2000, 1, 0.0))
    found = ratio(student - baseline, teacher - baseline)
    turned = ratio((student - baseline) * -1.0, (teacher - baseline) * -1.0)
    assert found == turned


def test_there_is_no_ratio_to_what_may_be_zero(rng: np.random.Generator) -> None:
    teacher, student, baseline = (_accuracy(one) for one in _models(rng, 100, 1, 0.0))
    assert not (teacher - baseline).interval().excludes_zero()
    assert ratio(student - baseline, teacher - baseline) is None


def test_a_model_keeps_all_of_itself(rng: np.random.Generator) -> None:
    student = _accuracy(rng.random((1, 300)) < 0.8)
    found = ratio(student, student)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


def test_the_standard_error_is_of_examples_and_seeds_together(rng: np.random.Generator) -> None:
    one = _accuracy(rng.random((1, 1000)) < 0.8, resamples=4000)
    assert one.error() == pytest.approx(math.sqrt(0.16 / 1000), rel=0.06)
    levels = np.array([[0.7], [0.8], [0.9]])
    three = _accuracy(rng.random((3, 1000)) < levels, resamples=4000)
    # seeds that differ by a standard deviation of 0.1, three of them
    assert three.error() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "by_seed"), [(1, 0.0), (3, 0.05), (5, 0.1)])
def test_intervals_of_a_ratio_cover_the_truth_about_95_times_in_100(
    seeds: int, by_seed: float, rng: np.random.Generator
) -> None:
    covered = 0
    for trial in range(400):
        teacher, student, baseline = (_accuracy(one, trial, 200) for one in _models(rng, 1000, seeds, by_seed))
        # the truth is a half; whether it is inside, the test above says without looking for the ends
        covered += not (student - baseline - (teacher - baseline) * 0.5).interval(trial).excludes_zero()
    # a standard error of 1.1 %, and 200 resamples cut the tails short by about 1 %
    assert 0.90 <= covered / 400 <= 0.985


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_an_interval_says_itself_in_a_line() -> None:
    assert str(Interval(0.56789, 0.381, 0.7421)) == "0.568 [0.381, 0.742]"
