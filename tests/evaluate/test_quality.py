from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import f1_score

from stilla.errors import StillaError
from stilla.evaluate.quality import Asked, Resampling, Sampled, bootstrap, weighted
from stilla.scores import Interval
from stilla.tasks.answers import Answers, Metric, Statistics
from tests.evaluate.fake_exam import ACCURACY, classified, macro_f1


def of(metric: Metric, data: Answers) -> Statistics:
    return metric.statistics(data.given, data.references)


def _accuracy(hits: NDArray[np.bool_], resamples: int = 1000, seed: int = 0) -> Sampled:
    """Of (seeds, examples) right or wrong."""
    labels = np.zeros(hits.shape[1], dtype=np.int64)
    seeds = [of(ACCURACY, classified(row, labels)) for row in hits]
    return bootstrap({"it": Asked(ACCURACY, seeds)}, Resampling(hits.shape[1], resamples, seed))["it"]


@pytest.mark.slow
def test_the_interval_of_a_proportion_has_its_analytic_width() -> None:
    hits = np.arange(2000)[None] % 10 < 8
    found = _accuracy(hits, resamples=20_000).interval()
    error = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - error, abs=0.0008)
    assert found.high == pytest.approx(0.8 + error, abs=0.0008)


@pytest.mark.slow
def test_the_paired_interval_has_its_analytic_width(rng: np.random.Generator) -> None:
    ours, theirs = rng.random(3000) < 0.9, rng.random(3000) < 0.9
    theirs[:2500] = ours[:2500]
    difference = ours.astype(float) - theirs
    found = (_accuracy(ours[None], 20_000) - _accuracy(theirs[None], 20_000)).interval()
    error = 1.96 * difference.std() / np.sqrt(3000)
    assert found.value == pytest.approx(difference.mean())
    assert found.high - found.low == pytest.approx(2 * error, rel=0.03)


def test_a_subject_differs_from_itself_by_nothing(rng: np.random.Generator) -> None:
    hits = rng.random((1, 200)) < 0.7
    assert (_accuracy(hits) - _accuracy(hits)).interval() == Interval(0.0, 0.0, 0.0)


def test_resampling_by_sums_equals_resampling_examples(rng: np.random.Generator) -> None:
    data = classified(rng.random(300) < 0.7, rng.integers(0, 3, 300))
    resampling = Resampling(300, 200)
    for metric in (ACCURACY, macro_f1(3)):
        def repeated(examples: NDArray[np.int64], counts: NDArray[np.int64], metric: Metric = metric) -> float:
            drawn = np.repeat(examples, counts)
            return metric.compute(data.given[drawn], data.references[drawn])

        by_examples = Metric("slow", lambda given, references: np.arange(len(given)), from_list=repeated)
        fast = resampling.sample({"it": weighted(metric, of(metric, data))})["it"]
        slow = resampling.sample({"it": weighted(by_examples, of(by_examples, data))})["it"]
        np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_sparse_and_dense_statistics_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 60, 500)
    data = classified(rng.random(500) < 0.7, labels, classes=60)
    weights = next(Resampling(500, 3).weights())
    found = weighted(macro_f1(60), of(macro_f1(60), data))(weights)
    expected = [f1_score(labels, data.given.argmax(1), average="macro", sample_weight=row,
                         labels=np.arange(60), zero_division=0.0) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_resamples_are_draws_with_replacement_and_the_same_every_time() -> None:
    resampling = Resampling(50, 400, seed=3)
    weights = np.concatenate(list(resampling.weights()))
    assert weights.shape == (400, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert np.array_equal(weights, np.concatenate(list(resampling.weights())))
    assert not np.array_equal(weights, np.concatenate(list(Resampling(50, 400, seed=4).weights())))


def test_many_examples_are_resampled_in_chunks(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator,
) -> None:
    monkeypatch.setattr("stilla.evaluate.quality.CHUNK", 700)
    parts = list(Resampling(100, 50).weights())
    assert [len(part) for part in parts] == [7] * 7 + [1]
    assert len(_accuracy(rng.random((1, 100)) < 0.5, resamples=50).resamples[0]) == 50


def test_several_seeds_are_averaged(rng: np.random.Generator) -> None:
    hits = rng.random((3, 400)) < np.array([[0.7], [0.8], [0.9]])
    found = _accuracy(hits)
    assert found.values.tolist() == hits.mean(1).tolist()
    assert found.interval().value == pytest.approx(hits.mean())
    # t with 2 degrees of freedom: three runs say little
    assert found.interval().high - found.interval().low > 0.2


def test_an_interval_of_few_seeds_stays_where_the_metric_can_be() -> None:
    hits = np.stack([np.arange(60) % 3 > 0, np.arange(60) % 3 == 0])
    far = _accuracy(hits)
    assert (far.interval().low, far.interval().high) == (0.0, 1.0)
    difference = (far - _accuracy(hits[::-1])).interval()
    assert (difference.low, difference.high) == (-1.0, 1.0)


def test_equal_seeds_add_nothing_to_the_interval(rng: np.random.Generator) -> None:
    hits = rng.random((1, 400)) < 0.8
    three, one = _accuracy(np.repeat(hits, 3, axis=0)).interval(), _accuracy(hits).interval()
    assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high))


def test_one_seed_is_paired_with_every_seed_of_the_other_and_other_numbers_are_refused(
    rng: np.random.Generator,
) -> None:
    three, two, one = (_accuracy(rng.random((seeds, 100)) < 0.8) for seeds in (3, 2, 1))
    assert (three - one).values.tolist() == (three.values - one.values[0]).tolist()
    with pytest.raises(StillaError, match="3 seeds and 2 seeds"):
        three - two


def _students(
    rng: np.random.Generator, seeds: int, by_seed: float, by_both: float,
) -> tuple[NDArray[np.bool_], float]:
    """Right or wrong on 300 random examples after `seeds` random trainings; and the accuracy over all."""
    latent = 1.3 + rng.normal(size=300) + by_seed * rng.normal(size=(seeds, 1))
    latent = latent + by_both * rng.normal(size=(seeds, 300))
    return latent > 0, float(norm.cdf(1.3 / np.sqrt(1 + by_seed**2 + by_both**2)))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "by_seed", "by_both"), [
    (1, 0.0, 0.0), (3, 0.0, 0.5), (3, 0.1, 0.5), (3, 0.4, 0.0), (5, 0.2, 0.2)])
def test_intervals_cover_the_truth_about_95_times_in_100(
    seeds: int, by_seed: float, by_both: float, rng: np.random.Generator,
) -> None:
    covered = 0
    for trial in range(400):
        hits, truth = _students(rng, seeds, by_seed, by_both)
        weights = next(Resampling(300, 200, seed=trial).weights())
        found = Sampled(hits.mean(1), hits @ weights.T / 300).interval(trial)
        covered += found.low <= truth <= found.high
    # 400 trials: a standard error of 1.1 %, and 200 resamples cut the tails short by about 1 %
    assert 0.90 <= covered / 400 <= 0.985


def test_a_metric_that_some_resamples_leave_undefined_still_has_an_interval() -> None:
    resamples = np.array([[0.5, np.nan, 0.7, 0.6]])
    found = Sampled(np.array([0.6]), resamples).interval()
    assert 0.5 <= found.low < found.high <= 0.7
    assert Sampled(np.array([0.6]), np.full((1, 4), np.nan)).interval().low == 0.6


def test_150_classes_cost_well_under_a_hundred_times_one(rng: np.random.Generator) -> None:
    """A guard against the dense product (or a loop over examples), not a measurement."""
    labels = rng.integers(0, 150, 5500)
    data = classified(rng.random(5500) < 0.9, labels, classes=150)

    def seconds(metric: Metric) -> float:
        started = time.process_time()
        weighted(metric, of(metric, data))(weights)
        return time.process_time() - started

    weights = next(Resampling(5500, 100).weights())
    assert seconds(macro_f1(150)) < 100 * seconds(ACCURACY) + 0.5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
