from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stilla.errors import StillaError
from stilla.evaluate import chance, compared_with_chance, is_weak
from stilla.tasks.answers import Answers, Given, Metric
from tests.evaluate.fake_exam import EXACT, PEARSON, RMSE, FakeExam, classified, ratio


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_chance_is_the_most_frequent_class() -> None:
    labels = np.array([0] * 2 + [1] * 5 + [2] * 3)
    assert chance(FakeExam(), classified(np.ones(10, dtype=bool), labels)) == 0.5


def test_chance_of_several_labels_is_each_labels_most_frequent_value() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    data = Answers(np.arange(4), np.zeros((4, 2)), labels)
    assert chance(FakeExam("labels", ("a", "b")), data, EXACT) == 0.5


def test_chance_of_a_number_is_its_mean_and_a_constant_has_no_correlation(rng: np.random.Generator) -> None:
    labels = rng.normal(3.0, 2.0, 500)
    data = Answers(np.arange(500), np.zeros(500), labels)
    assert chance(FakeExam("number"), data, RMSE) == pytest.approx(labels.std())
    assert chance(FakeExam("number"), data, PEARSON) == 0.0


def test_a_teacher_that_guesses_is_weak_and_one_that_knows_is_not(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 300)
    assert is_weak(FakeExam(), classified(rng.random(300) < 0.36, labels))
    assert not is_weak(FakeExam(), classified(rng.random(300) < 0.6, labels))
    found, level = compared_with_chance(FakeExam(), classified(rng.random(300) < 0.6, labels))
    assert found.low > level == pytest.approx(np.bincount(labels).max() / 300)


def test_a_teacher_that_always_says_the_most_frequent_class_is_weak() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    always = Answers(np.arange(1000), np.tile([1.0, 0.0, 0.0], (1000, 1)), labels)
    assert is_weak(FakeExam(), always)


def test_lower_is_better_where_the_metric_says_so(rng: np.random.Generator) -> None:
    labels = rng.normal(size=200)
    exam = FakeExam("number", measured_by=(RMSE,))
    assert not is_weak(exam, Answers(np.arange(200), labels + 0.1, labels))
    assert is_weak(exam, Answers(np.arange(200), rng.normal(size=200), labels))


def test_a_teacher_that_guesses_rare_labels_is_weak_with_an_f1_above_zero(rng: np.random.Generator) -> None:
    def hits(outputs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.stack([2 * ((outputs > 0) & (labels > 0)).sum(1), (outputs > 0).sum(1) + labels.sum(1)], 1).astype(float)

    micro_f1 = Metric("micro_f1", hits, ratio)
    exam = FakeExam("labels", measured_by=(micro_f1,))
    labels = (rng.random((400, 3)) < 0.2).astype(np.int64)
    guessed = Answers(np.arange(400), rng.random((400, 3)) - 0.5, labels)
    assert micro_f1.compute(guessed.given, labels) > 0.25
    assert is_weak(exam, guessed)
    known = Answers(np.arange(400), labels + 0.8 * rng.normal(size=(400, 3)) - 0.5, labels)
    assert not is_weak(exam, known)


def test_a_teacher_that_predicts_a_constant_is_weak(rng: np.random.Generator) -> None:
    assert is_weak(FakeExam("number"), Answers(np.arange(100), np.ones(100), rng.normal(size=100)))


def test_a_teacher_that_says_nan_is_named() -> None:
    with pytest.raises(StillaError, match="teacher: 5 of 5 predictions are NaN"):
        is_weak(FakeExam(), Answers(np.arange(5), np.full((5, 3), np.nan), np.zeros(5, dtype=np.int64)))


def test_shuffled_answers_are_measured_one_after_the_other() -> None:
    """Twenty copies of the answers to a large split would not fit into memory."""
    done: list[str] = []

    class Watched(FakeExam):
        def shuffled(self, answers: Answers, generator: np.random.Generator) -> Given | None:
            done.append("shuffled")
            return super().shuffled(answers, generator)

    def hits(outputs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        done.append("measured")
        return np.ones((len(labels), 2))

    chance(Watched(measured_by=(Metric("it", hits, ratio),)), classified(np.ones(9, dtype=bool), np.arange(9) % 3))
    assert done == ["measured", *["shuffled", "measured"] * 20]
