"""What labels count in training, from which probability on they apply, and what nobody knows of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from stilla.errors import DataError
from stilla.objectives import Labels, Logits
from stilla.rows import row_loss
from stilla.signals import Batch, Dense, Side
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.shared import metrics
from stilla.tasks.shared.class_exam import ClassExam, best_thresholds, f1_by_class, prior_logits
from stilla.tasks.shared.label_order import adapted
from stilla.tasks.shared.label_weights import problem_of, weights_of_rows
from stilla.tasks.shared.labels import Problem
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.views import Text
from tests.tasks import tiny

SEVERAL = {"rude": [1, 0, None, 0, 0, 1], "long": [0, 0, 0, None, 1, 0]}
FEW = ["a", "b", "a", "a", "c", "a", "b", "a"]


def problem(rows: dict[str, list[Any]], label: tuple[str, ...] = ("label",), **section: Any) -> Problem:
    asked = TextClassificationData.model_validate({"train": "x", "label": list(label), **section})
    return problem_of(asked, label, {"train": Dataset.from_dict(rows)})


def several(**section: Any) -> Problem:
    return problem(SEVERAL, ("rude", "long"), **section)


def task_of(problem: Problem) -> TextClassification:
    return TextClassification(problem)


def losses_of(problem: Problem, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What training makes of a batch: the sum over its rows."""
    said = task_of(problem).signals({"logits": logits}, Batch(student={"x": logits}, labels=labels), Side.STUDENT)
    assert said.logits is not None
    loss, _ = row_loss([(Labels(), 1.0)], said.logits, None, said.labels, 0.0, weights=said.weights)
    return loss


# --- what labels count ---


def test_balanced_weights_of_classes_are_scikit_learns() -> None:
    found = problem({"label": FEW}, label_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=FEW)
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)
    weights = weights_of_rows(found, torch.tensor(found.encode(Dataset.from_dict({"label": FEW}))))
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)


def test_balanced_weights_of_several_labels_are_examples_without_over_examples_with() -> None:
    assert several(label_weights="balanced").weights == (1.5, 4.0)  # of what is known: 3 and 2, 4 and 1


def test_a_weighted_class_has_torchs_weighted_loss() -> None:
    weighed = problem({"label": FEW}, label_weights={"c": 5, "b": 0.5})
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.manual_seed(0))
    labels = torch.tensor([0, 1, 2, 2, -100, 1])
    expected = F.cross_entropy(logits, labels, torch.tensor([1.0, 0.5, 5.0], dtype=torch.float64), reduction="sum")
    torch.testing.assert_close(losses_of(weighed, logits, labels), expected, rtol=1e-12, atol=0)


def test_a_weighted_one_of_several_labels_has_torchs_loss_with_pos_weight() -> None:
    weighed = several(label_weights={"long": 3})
    logits, labels = torch.randn(5, 2, dtype=torch.float64, generator=torch.manual_seed(0)), torch.tensor(
        [[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    expected = F.binary_cross_entropy_with_logits(
        logits, labels.double(), pos_weight=torch.tensor([1.0, 3.0], dtype=torch.float64), reduction="sum")
    torch.testing.assert_close(losses_of(weighed, logits, labels), expected, rtol=1e-12, atol=0)


def test_what_a_teacher_says_is_not_weighed() -> None:
    weights = torch.tensor([4.0, 9.0])
    student, teacher, labels = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0, 1])
    terms = [(Labels(), 1.0), (Logits(temperature=2.0), 1.0)]
    _, plain = row_loss(terms, Dense(student), Dense(teacher), labels, 0.0)
    _, weighed = row_loss(terms, Dense(student), Dense(teacher), labels, 0.0, weights=weights)
    assert plain[1] == weighed[1]
    assert 4 * plain[0] < weighed[0] < 9 * plain[0]


def test_weights_follow_their_classes_into_a_teachers_order() -> None:
    weighed = problem({"label": FEW}, label_weights={"a": 2, "c": 7})
    config = tiny.bert_config(num_labels=4, **tiny.labels_of("c", "d", "a", "b"))
    assert adapted(weighed, config, "teacher").weights == (7.0, 1.0, 2.0, 1.0)


def test_a_resolved_recipe_names_the_weights() -> None:
    section = TextClassificationData.model_validate({"train": "x", "label": "label", "text": "text",
                                                     "label_weights": "balanced"})
    splits = tiny.splits_of({"text": [f"t {n}" for n in range(len(FEW))], "label": FEW})
    resolved = TextClassification.understand(section, splits).resolved(section)
    assert resolved.label_weights == {"a": pytest.approx(8 / 15, abs=1e-6), "b": pytest.approx(4 / 3, abs=1e-6),
                                      "c": pytest.approx(8 / 3, abs=1e-6)}
    again = TextClassification.understand(resolved, splits)
    assert again.resolved(resolved) == resolved


@pytest.mark.parametrize(("rows", "section", "words"), [
    ({"label": FEW}, {"label_weights": {"d": 2}}, "no label is called 'd'; expected some of a, b or c"),
    ({"label": [0.5, 1.5, 2.5]}, {"label_weights": "balanced"}, "the label is a number"),
    ({"label": FEW}, {"thresholds": "tuned"}, "tuned is for several labels per example, and here the answer is one class"),
    ({"label": [0.5, 1.5, 2.5]}, {"thresholds": "tuned"}, "the answer is a number"),
])
def test_weights_and_thresholds_of_what_is_not_there(rows: dict[str, list[Any]], section: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem(rows, **section)


# --- what nobody knows ---


def test_an_empty_place_among_several_labels_is_not_known_rather_than_0() -> None:
    assert several().encode(Dataset.from_dict(SEVERAL)).tolist() == [
        [1, 0], [0, 0], [NO_ANSWER, 0], [0, NO_ANSWER], [0, 1], [1, 0]]
    texts = {"rude": ["1", "0", " ", "0"], "long": ["0", "1", "1", "0"]}
    assert problem(texts, ("rude", "long")).encode(Dataset.from_dict(texts))[2].tolist() == [NO_ANSWER, 1]


def test_how_many_are_not_known_is_said(caplog: pytest.LogCaptureFixture) -> None:
    several()
    assert "data.train: whether 'rude' applies is not known of 1 of 6 examples" in caplog.text


def test_a_label_that_is_not_known_has_no_gradient_and_is_not_counted() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    labels = torch.tensor([[1, NO_ANSWER], [0, 1], [NO_ANSWER, NO_ANSWER]])
    losses_of(several(), logits, labels).backward()
    assert logits.grad is not None
    assert ((logits.grad != 0) == (labels != NO_ANSWER)).all()
    counts = task_of(several()).label_counts(Batch(student={"x": logits}, labels=labels))
    assert counts == {"rows": 6, "labelled": 3, "examples": 3}


def test_a_label_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.train: 'long' is empty in every example"):
        problem({"rude": [1, 0], "long": [None, None]}, ("rude", "long"))


def test_what_is_not_known_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 3)), rng.integers(0, 2, (200, 3))
    labels[rng.random(labels.shape) < 0.3] = NO_ANSWER
    known = labels != NO_ANSWER
    by_label = [f1_score(labels[known[:, n], n], logits[known[:, n], n] > 0) for n in range(3)]
    found = {metric.name: metric.compute(logits, labels) for metric in metrics.multi_label()}
    assert found["macro_f1"] == pytest.approx(np.mean(by_label))
    assert found["micro_f1"] == pytest.approx(f1_score(labels[known], logits[known] > 0))
    whole = [((logits[n] > 0) == labels[n])[known[n]].all() for n in range(200)]
    assert found["subset_accuracy"] == pytest.approx(np.mean(whole))
    decided = (logits > 0).astype(np.int64)
    np.testing.assert_allclose(f1_by_class(("a", "b", "c"), decided, labels).values, by_label)
    shares = [labels[known[:, n], n].mean() for n in range(3)]
    np.testing.assert_allclose(prior_logits(labels, 3), np.log(shares) - np.log1p(-np.array(shares)))


# --- from which probability on a label applies ---


@pytest.mark.slow
def test_chosen_thresholds_give_the_highest_f1_that_there_is() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (60, 4))
    logits = np.round(rng.normal(size=labels.shape) + labels - 2, 1)  # with ties
    labels[:5, 2] = NO_ANSWER
    for place, threshold in enumerate(best_thresholds(logits, labels)):
        known = labels[:, place] != NO_ANSWER
        there, given = labels[known, place], logits[known, place]
        lines = np.append(np.unique(given) + 0.05, given.min() - 1)
        highest = max(f1_score(there, given > line, zero_division=0.0) for line in lines)
        assert f1_score(there, given > threshold) == pytest.approx(highest)


def test_a_half_stays_where_nothing_is_better() -> None:
    logits = np.array([[2.0, -1.0], [-2.0, -3.0]])
    assert best_thresholds(logits, np.array([[1, 0], [0, 0]])).tolist() == [0.0, 0.0]  # parted by it; never there


def test_every_model_is_judged_by_its_own_thresholds_and_its_distribution_stays() -> None:
    exam = ClassExam(several(), lambda split, key: Text(""), tuned=True)
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (80, 2))
    given = (rng.normal(size=labels.shape) + labels - 3).astype(np.float32)
    raw = Answers(np.arange(80), given, labels)
    settled = exam.settled(raw, raw)
    first = exam.metrics()[1]
    assert first.name == "macro_f1"
    assert first.compute(settled.given, labels) > first.compute(given, labels) + 0.2
    lines = exam.thresholds(raw)
    decisions = exam.decisions(settled)
    assert decisions is not None
    assert (decisions.decided == (given > lines)).all()
    assert decisions.confidence is not None
    applies = 1 / (1 + np.exp(-given.astype(np.float64)))
    np.testing.assert_allclose(decisions.confidence, np.where(given > lines, applies, 1 - applies), rtol=1e-9)
    other = replace(raw, given=given[::-1].copy())
    kl = exam.divergence(raw, other)
    assert kl is not None
    np.testing.assert_array_equal(exam.divergence(settled, exam.settled(other, other)), kl)
