from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

from stilla.evaluate import paired
from stilla.evaluate.paired import over_examples, over_seeds
from stilla.scores import PairedTest
from stilla.tasks.answers import Answers, Metric
from stilla.tasks.shared import metrics
from tests.evaluate.fake_exam import ACCURACY, classified, macro_f1


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_seeds_that_all_agree_have_the_least_p_that_there_is(seeds: int, least: float) -> None:
    assert over_seeds(np.linspace(0.01, 0.02, seeds)) == PairedTest(least, least, seeds)
    assert over_seeds(-np.linspace(0.01, 0.02, seeds)) == PairedTest(least, least, seeds)


def test_all_ways_to_exchange_seeds_are_counted(rng: np.random.Generator) -> None:
    for seeds in (2, 4, 7):
        differences = rng.normal(0.3, 1, seeds)
        every = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=seeds)]
        found = over_seeds(differences)
        assert found is not None
        assert found.p == np.mean([one >= abs(differences.sum()) - 1e-12 for one in every])


def test_a_single_seed_says_nothing_of_others() -> None:
    assert over_seeds(np.array([0.02])) is None


def test_seeds_without_a_difference_are_all_chance() -> None:
    assert over_seeds(np.zeros(4)) == PairedTest(1.0, 0.125, 4)


def test_many_seeds_are_exchanged_at_random(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = rng.normal(0.3, 1, 12)
    exact = over_seeds(differences)
    assert exact is not None
    monkeypatch.setattr(paired, "ALL", 11)
    drawn = over_seeds(differences)
    assert drawn is not None
    assert (drawn.least, drawn.pairs) == (2**-11, 12)
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 2**11))


def _answers(rng: np.random.Generator, labels: NDArray[np.int64], level: float, seeds: int) -> list[Answers]:
    return [classified(rng.random(len(labels)) < level, labels) for _ in range(seeds)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_exchanging_sums_is_exchanging_answers(name: str, rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 150)
    student, baseline = _answers(rng, labels, 0.8, 2), _answers(rng, labels, 0.72, 2)
    metric = ACCURACY if name == "accuracy" else macro_f1(3)
    found = over_examples(metric, *([metric.statistics(one.given, one.references) for one in seeds]
                                    for seeds in (student, baseline)), draws=60, seed=5)

    def value(said: NDArray[np.int64]) -> float:
        return accuracy_score(labels, said) if name == "accuracy" else f1_score(labels, said, average="macro")

    def difference(kept: NDArray[np.bool_]) -> float:
        pairs = [(one.given.argmax(1), other.given.argmax(1)) for one, other in zip(student, baseline)]
        return float(np.mean([value(np.where(kept, a, b)) - value(np.where(kept, b, a)) for a, b in pairs]))

    drawn = np.random.default_rng((5, 150)).integers(0, 2, (60, 150)).astype(bool)
    large = sum(abs(difference(kept)) >= abs(difference(np.ones(150, bool))) - 1e-12 for kept in drawn)
    assert found is not None
    assert (found.p, found.least, found.pairs) == (pytest.approx((1 + large) / 61, abs=1e-12), pytest.approx(1 / 61), 150)


def test_exchanging_lists_is_exchanging_sums(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 120)
    student, baseline = _answers(rng, labels, 0.8, 1), _answers(rng, labels, 0.7, 1)

    def counted(rows: list[float], counts: NDArray[np.int64]) -> float:
        return float(np.dot(rows, counts) / counts.sum())

    def hits(given: NDArray[np.float64], references: NDArray[np.int64]) -> list[float]:
        return [float(one) for one in given.argmax(1) == references]

    listed = Metric("listed", hits, from_list=counted)
    found = [over_examples(metric, *([metric.statistics(one.given, one.references) for one in seeds]
                                     for seeds in (student, baseline)), draws=50) for metric in (ACCURACY, listed)]
    assert found[0] == found[1]


def test_many_examples_are_exchanged_in_chunks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = rng.integers(0, 3, 80)
    said = [[ACCURACY.statistics(one.given, one.references) for one in _answers(rng, labels, level, 1)]
            for level in (0.9, 0.7)]
    whole = over_examples(ACCURACY, *said, draws=100)
    monkeypatch.setattr(paired, "CHUNK", 700)
    assert over_examples(ACCURACY, *said, draws=100) == whole


def test_statistics_of_two_models_with_other_means_can_be_exchanged(rng: np.random.Generator) -> None:
    """A correlation is made of moments, which must be around the same point for both."""
    metric = next(one for one in metrics.regression() if one.name == "pearson")
    labels = rng.normal(size=(200, 1))
    one, other = labels + rng.normal(size=(200, 1)), 3 + labels + rng.normal(size=(200, 1))
    kept = rng.random(200) < 0.5
    mixed = np.where(kept[:, None], metric.statistics(one, labels), metric.statistics(other, labels))
    exact = pearsonr(np.where(kept, one[:, 0], other[:, 0]), labels[:, 0]).statistic
    assert metric.of(mixed) == pytest.approx(exact, rel=1e-9)


def test_what_is_not_defined_is_not_tested() -> None:
    never = Metric("never", lambda given, references: np.ones((len(given), 1)), lambda sums: float("nan"))
    assert over_examples(never, [np.ones((9, 1))], [np.ones((9, 1))]) is None


@pytest.mark.slow
def test_without_a_difference_p_is_below_5_in_100_about_as_often(rng: np.random.Generator) -> None:
    by_examples, by_seeds = [], []
    for _ in range(400):
        hits = rng.random((2, 6, 200)) < 0.8
        both = [[np.stack([one, np.ones(200)], axis=1).astype(float) for one in model] for model in hits]
        found = over_examples(ACCURACY, *both, draws=199)
        seeds = over_seeds(hits[0].mean(1) - hits[1].mean(1))
        assert found is not None
        assert seeds is not None
        by_examples.append(found.p)
        by_seeds.append(seeds.p)
    for found in (by_examples, by_seeds):
        assert np.mean(np.array(found) <= 0.05) <= 0.08
        assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
