from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, rel_entr, softmax
from sklearn.metrics import f1_score

from stilla.evaluate import Predictions
from stilla.evaluate.fidelity import (
    AGREEMENT,
    Decisions,
    class_f1,
    class_scores,
    decide,
    distributions,
    flip_kinds,
    flips,
    kl_divergence,
)
from tests.evaluate.fake_task import FakeTask


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_kl_equals_scipys(rng: np.random.Generator) -> None:
    p, q = softmax(rng.normal(size=(50, 7)), axis=1), softmax(rng.normal(size=(50, 7)), axis=1)
    np.testing.assert_allclose(kl_divergence(p, q), rel_entr(p, q).sum(1), rtol=1e-12)


def test_kl_of_several_labels_is_the_sum_of_bernoullis(rng: np.random.Generator) -> None:
    p, q = rng.random((20, 4)), rng.random((20, 4))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
    found = kl_divergence(np.stack([1 - p, p], -1), np.stack([1 - q, q], -1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def _distributions(kind: str, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    found = distributions(FakeTask(kind), Predictions(np.arange(1), outputs, np.zeros(1)))
    assert found is not None
    return found


def test_kl_of_very_sure_models_is_exact_and_finite() -> None:
    """Probabilities of 1e-131 vanish in float32, and 1 - p of a sure label in float64."""
    outputs = np.array([[300.0, 0.0, 0.0]], dtype=np.float32)
    other = outputs[:, ::-1].copy()
    single = [_distributions("class", one) for one in (outputs, other)]
    assert kl_divergence(*single)[0] == pytest.approx(300.0)
    several = [_distributions("labels", np.array([[sure]], np.float32)) for sure in (50.0, -50.0)]
    assert kl_divergence(*several)[0] == pytest.approx(50.0)
    never = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert np.isfinite(kl_divergence(*never)).all()


def test_kl_to_oneself_is_zero(rng: np.random.Generator) -> None:
    p = softmax(30 * rng.normal(size=(50, 7)), axis=1)
    assert (kl_divergence(p, p) == 0).all()


def test_agreement_counts_examples_and_of_several_labels_each() -> None:
    assert AGREEMENT.compute(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert AGREEMENT.compute(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 1]])) == 0.75


def test_class_f1_equals_scikit_learns(rng: np.random.Generator) -> None:
    decided, labels = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    expected = f1_score(labels, decided, average=None, labels=np.arange(6), zero_division=0.0)
    np.testing.assert_allclose(class_f1(decided, labels, 6), expected)
    several = rng.integers(0, 2, (200, 4)), rng.integers(0, 2, (200, 4))
    np.testing.assert_allclose(class_f1(*several, 4), f1_score(several[1], several[0], average=None))


def test_class_scores_average_over_seeds() -> None:
    labels = np.array([0, 0, 1, 1])
    found = class_scores(("cat", "dog"), labels, {"student": [labels, 1 - labels], "teacher": [labels]})
    assert [(one.name, one.support, one.f1) for one in found] == [
        ("cat", 2, {"student": 0.5, "teacher": 1.0}), ("dog", 2, {"student": 0.5, "teacher": 1.0})]


NAMES = ("cat", "dog", "eel")
LABELS = np.array([0, 0, 0, 0, 1, 1])
TEACHER = Decisions(np.array([0, 0, 1, 2, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]))
STUDENT = Decisions(np.array([0, 1, 0, 1, 2, 1]), np.array([0.9, 0.5, 0.8, 0.7, 0.6, 0.95]))


def test_flips_are_lost_won_or_moved_the_surest_first() -> None:
    found = flip_kinds(TEACHER, STUDENT, LABELS)
    assert {kind: positions.tolist() for kind, positions in found.items()} == {
        "lost": [4, 1], "won": [5, 2], "moved": [3]}


def test_an_example_with_several_labels_is_right_if_all_are() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
    teacher = decide(np.stack([1 - labels * 0.9, labels * 0.9], -1))
    wrong = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])
    student = decide(np.stack([1 - wrong * 0.8, wrong * 0.8], -1))
    assert flip_kinds(teacher, student, labels)["lost"].tolist() == [2, 3, 0]  # sure by 1, 0.8, 0.64
    assert flip_kinds(student, teacher, labels)["won"].tolist() == [0, 2, 3]


def test_flips_show_what_each_subject_said() -> None:
    kinds = flip_kinds(TEACHER, STUDENT, LABELS)
    found = flips(kinds, {"teacher": TEACHER, "student": STUDENT}, np.arange(10, 16), LABELS, NAMES,
                  lambda key: f"text {key}")
    assert [one.key for one in found] == ["15", "12", "13", "14", "11"]
    assert found[0].shown == "text 15"
    assert (found[0].label, found[0].kind) == ("dog", "won")
    assert found[0].predictions == {"teacher": "cat", "student": "dog"}
    assert found[0].confidences == {"teacher": 0.4, "student": 0.95}


def test_several_labels_are_named_together() -> None:
    decided = Decisions(np.array([[1, 0, 1], [0, 0, 0]]), np.full((2, 3), 0.5))
    other = Decisions(1 - decided.decided, decided.confidence)
    labels = decided.decided
    found = flips(flip_kinds(decided, other, labels), {"teacher": decided, "student": other}, np.arange(2),
                  labels, NAMES, str)
    assert [one.predictions["teacher"] for one in found] == ["cat, eel", "none"]
    assert found[0].confidences["student"] == pytest.approx(0.125)


@pytest.mark.parametrize(("there", "shown"), [((100, 100, 100), (20, 20, 20)), ((100, 4, 100), (28, 4, 28)),
                                              ((3, 2, 1), (3, 2, 1)), ((200, 0, 0), (60, 0, 0))])
def test_at_most_sixty_are_shown_and_rare_kinds_give_their_places_away(
    there: tuple[int, int, int], shown: tuple[int, int, int],
) -> None:
    total = sum(there)
    labels = np.zeros(total, dtype=np.int64)
    lost, won, _ = there
    teacher = np.full(total, 2)
    teacher[:lost] = 0
    student = np.ones(total, dtype=np.int64)
    student[lost:lost + won] = 0
    subjects = {"teacher": decide(np.eye(3)[teacher]), "student": decide(np.eye(3)[student])}
    kinds = flip_kinds(subjects["teacher"], subjects["student"], labels)
    assert tuple(len(positions) for positions in kinds.values()) == there
    found = flips(kinds, subjects, np.arange(total), labels, NAMES, str)
    assert tuple(sum(one.kind == kind for one in found) for kind in ("lost", "won", "moved")) == shown


def test_probabilities_of_labels_keep_their_digits() -> None:
    found = _distributions("labels", np.array([[40.0]], np.float32))
    assert found[0, 0, 0] == pytest.approx(expit(-40.0), rel=1e-12)
