"""How classifiers are judged: every number against SciPy's, scikit-learn's or the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, rel_entr, softmax
from sklearn.metrics import f1_score

from stilla.tasks.answers import Answers, Decisions
from stilla.tasks.shared import class_exam
from stilla.tasks.shared.class_exam import ClassExam, f1_by_class, kl_divergence
from stilla.tasks.shared.labels import Problem
from stilla.views import Text

FORMS = {"single_label": "class", "multi_label": "list", "regression": "number"}


def exam(kind: str, names: tuple[str, ...] = ("cat", "dog", "eel")) -> ClassExam:
    problem = Problem(FORMS[kind], ("label",), () if kind == "regression" else names)  # type: ignore[arg-type]
    assert problem.kind == kind
    return ClassExam(problem, lambda split, key: Text(str(split[key]["text"])))


def answers(given: Any, references: Any = None) -> Answers:
    return Answers(np.arange(len(given)), given, np.zeros(len(given), np.int64) if references is None else references)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_kl_equals_scipys(rng: np.random.Generator) -> None:
    p, q = softmax(rng.normal(size=(50, 7)), axis=1), softmax(rng.normal(size=(50, 7)), axis=1)
    np.testing.assert_allclose(kl_divergence(np.log(p), np.log(q)), rel_entr(p, q).sum(1), rtol=1e-12)


def test_kl_of_several_labels_is_the_sum_of_bernoullis(rng: np.random.Generator) -> None:
    p, q = rng.random((20, 4)), rng.random((20, 4))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
    found = kl_divergence(*(np.log(np.stack([1 - one, one], -1)) for one in (p, q)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_kl_of_very_sure_models_is_exact_and_finite() -> None:
    """Probabilities of 1e-131 vanish in float32, and 1 - p of a sure label in float64."""
    given = np.array([[300.0, 0.0, 0.0]], dtype=np.float32)
    assert exam("single_label").divergence(answers(given), answers(given[:, ::-1].copy()))[0] == pytest.approx(300.0)
    several = [answers(np.array([[sure]], np.float32), np.ones((1, 1), np.int64)) for sure in (50.0, -50.0)]
    assert exam("multi_label").divergence(*several)[0] == pytest.approx(50.0)
    surest = np.array([[3e38, -3e38]], np.float32)
    assert np.isfinite(exam("single_label", ("a", "b")).divergence(answers(surest), answers(-surest))).all()
    with np.errstate(divide="ignore"):
        never = np.log(np.array([[1.0, 0.0]]))
    assert kl_divergence(never, np.log(np.array([[0.25, 0.75]])))[0] == pytest.approx(np.log(4))


def test_kl_to_oneself_is_zero(rng: np.random.Generator) -> None:
    p = log_softmax(30 * rng.normal(size=(50, 7)), axis=1)
    assert (kl_divergence(p, p) == 0).all()


def test_the_divergence_of_answers_is_that_of_their_distributions(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(size=(2, 30, 3)).astype(np.float32)
    p, q = (softmax(one.astype(np.float64), axis=1) for one in (theirs, ours))
    found = exam("single_label").divergence(answers(theirs), answers(ours))
    np.testing.assert_allclose(found, rel_entr(p, q).sum(1), rtol=1e-9)
    p, q = (expit(one.astype(np.float64)) for one in (theirs, ours))
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(1)
    np.testing.assert_allclose(exam("multi_label").divergence(answers(theirs), answers(ours)), expected, rtol=1e-9)


def test_decisions_are_the_likeliest_class_and_of_several_labels_each(rng: np.random.Generator) -> None:
    given, labels = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    found = exam("single_label").decisions(answers(given, labels))
    assert found is not None
    assert found.decided.tolist() == given.argmax(1).tolist()
    np.testing.assert_allclose(found.confidence, softmax(given, axis=1).max(1))
    assert found.references.tolist() == labels.tolist()
    flags = rng.integers(0, 2, (40, 3))
    several = exam("multi_label").decisions(answers(given, flags))
    assert several is not None
    assert several.decided.tolist() == (given > 0).astype(int).tolist()
    np.testing.assert_allclose(several.confidence, expit(np.abs(given)))
    assert len(several) == 40


def test_confidence_of_a_sure_label_keeps_its_digits() -> None:
    ((_, one),) = exam("multi_label", ("a",))._logs(answers(np.array([[40.0]], np.float32)))
    assert np.exp(one[0, 0, 0]) == pytest.approx(expit(-40.0), rel=1e-12)


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_many_examples_are_worked_on_in_parts_with_the_same_numbers(
    kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = rng.integers(0, 2, (10, 3)) if kind == "multi_label" else rng.integers(0, 3, 10)
    ours, theirs = (answers(one, labels) for one in rng.normal(size=(2, 10, 3)))
    whole, kl = exam(kind).decisions(ours), exam(kind).divergence(theirs, ours)
    monkeypatch.setattr(class_exam, "_CHUNK", 9)  # three examples
    parts = exam(kind).decisions(ours)
    assert isinstance(whole, Decisions)
    assert isinstance(parts, Decisions)
    assert np.array_equal(parts.decided, whole.decided)
    assert np.array_equal(parts.confidence, whole.confidence)
    assert np.array_equal(exam(kind).divergence(theirs, ours), kl)


def test_f1_of_classes_equals_scikit_learns(rng: np.random.Generator) -> None:
    decided, labels = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    expected = f1_score(labels, decided, average=None, labels=np.arange(6), zero_division=0.0)
    found = f1_by_class(tuple("abcdef"), decided, labels)
    np.testing.assert_allclose(found.values, expected)
    assert found.support.tolist() == np.bincount(labels, minlength=6).tolist()
    several: list[NDArray[Any]] = [rng.integers(0, 2, (200, 4)), rng.integers(0, 2, (200, 4))]
    np.testing.assert_allclose(f1_by_class(tuple("abcd"), *several).values, f1_score(several[1], several[0], average=None))


def test_a_number_is_measured_and_decides_nothing(rng: np.random.Generator) -> None:
    number = exam("regression")
    one = answers(rng.normal(size=(5, 1)), rng.normal(size=5))
    assert [metric.name for metric in number.metrics()] == ["pearson", "spearman", "rmse"]
    assert (number.decisions(one), number.divergence(one, one), number.by_class(one)) == (None, None, None)


def test_classes_are_named_and_several_labels_together() -> None:
    assert exam("single_label").named(np.int64(1)) == "dog"
    assert [exam("multi_label").named(np.array(one)) for one in ([1, 0, 1], [0, 0, 0])] == ["cat, eel", "none"]


def test_an_example_is_shown_by_its_place_in_the_split() -> None:
    said = Answers(np.array([4, 9]), np.zeros((2, 3)), np.zeros(2, np.int64))
    split = Dataset.from_dict({"text": [f"text {key}" for key in range(10)]})
    assert exam("single_label").view(split, {"student": said}, 1, 0) == Text("text 9")
