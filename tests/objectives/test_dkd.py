"""The teacher's distribution in two parts: the paper in NumPy, autograd, and what neither part may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import DKD, Labels, Logits
from stilla.objectives.base import RowObjective, Softened
from stilla.rows import row_loss
from stilla.signals import Dense, Dims
from tests.objectives.test_logits import logits
from tests.rows.setting import HEADS, draw, in_pieces, sides, textbook, top_k


def oracle(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, alpha: float, beta: float, temperature: float
) -> np.ndarray:
    """Zhao et al. 2022, sec. 3: from the probabilities alone, a row at a time."""
    found = []
    for z_q, z_p, label in zip(student, teacher, labels, strict=True):
        if label == -100:
            found.append(0.0)
            continue
        p, q = softmax(z_p / temperature), softmax(z_q / temperature)
        target = [(p[label], q[label]), (1 - p[label], 1 - q[label])]
        first = sum(a * np.log(a / b) for a, b in target)
        others = [(p[one] / (1 - p[label]), q[one] / (1 - q[label])) for one in range(len(p)) if one != label]
        second = sum(a * np.log(a / b) for a, b in others)
        found.append(temperature**2 * (alpha * first + beta * second))
    return np.array(found)


def slopes(student: np.ndarray, *others: object, step: float = 1e-5) -> np.ndarray:
    """By differences of the oracle."""
    found = np.zeros_like(student)
    for column in range(student.shape[1]):
        ends = []
        for sign in (1, -1):
            moved = student.copy()
            moved[:, column] += sign * step
            ends.append(oracle(moved, *others))  # type: ignore[arg-type]
        found[:, column] = (ends[0] - ends[1]) / (2 * step)
    return found


def labelled(rows: int = 7, classes: int = 5) -> torch.Tensor:
    labels = torch.arange(rows) * 3 % classes
    labels[2] = -100
    return labels


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.0, 2.0), (1.5, 0.0)])
def test_value_and_gradient_are_the_papers(alpha: float, beta: float, temperature: float) -> None:
    student, teacher = logits()
    labels = labelled()
    objective = DKD(alpha=alpha, beta=beta, temperature=temperature)
    losses, gradient = objective.losses_and_gradients(Softened(student), Dense(teacher), labels, 0.0)
    given = (student.numpy(), teacher.numpy(), labels.numpy(), alpha, beta, temperature)
    np.testing.assert_allclose(losses.numpy(), oracle(*given), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient.dense().numpy(), slopes(*given), rtol=1e-5, atol=1e-8)
    student.requires_grad_()
    plain = objective.losses(student, Dense(teacher), labels, 0.0)
    plain.sum().backward()
    np.testing.assert_allclose(plain.detach().numpy(), oracle(*given), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), gradient.dense().numpy(), rtol=1e-9, atol=1e-12)


def test_with_the_teachers_own_weight_it_is_forward_kl() -> None:
    """KL = KL of the label + (1 - p_y) KL of the others: the paper's starting point."""
    student, teacher = logits(20, 5)
    labels = torch.arange(20) % 5
    sure = torch.softmax(teacher / 2, -1).gather(-1, labels[:, None]).squeeze(-1)
    label, others = (DKD(alpha=a, beta=b, temperature=2.0).losses(student, Dense(teacher), labels, 0.0)
                     for a, b in ((1.0, 0.0), (0.0, 1.0)))
    whole = Logits(temperature=2.0).losses(student, Dense(teacher), None, 0.0)
    torch.testing.assert_close(label + (1 - sure) * others, whole, rtol=1e-10, atol=1e-12)


def test_zero_at_a_perfect_match() -> None:
    student, _ = logits()
    losses, gradient = DKD().losses_and_gradients(Softened(student), Dense(student.clone()), labelled(), 0.0)
    assert losses.abs().max() < 1e-13
    assert gradient.dense().abs().max() < 1e-13


def test_rows_without_a_label_teach_nothing() -> None:
    student, teacher = logits()
    student[2, 1], teacher[2, 3] = 1e30, -torch.inf
    losses, gradient = DKD().losses_and_gradients(Softened(student), Dense(teacher), labelled(), 0.0)
    assert losses[2] == 0
    assert not gradient.dense()[2].any()
    assert (losses[:2] > 0).all()


def test_a_constant_and_the_order_of_the_classes_change_nothing() -> None:
    student, teacher = logits()
    labels, order = labelled(), torch.randperm(5)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(5))
    before = DKD().losses(student, Dense(teacher), labels, 0.0)
    moved = DKD().losses(student + 7.5, Dense(teacher - 3.25), labels, 0.0)
    elsewhere = DKD().losses(student[:, order], Dense(teacher[:, order]),
                             torch.where(labels >= 0, place[labels.clamp_min(0)], -100), 0.0)
    torch.testing.assert_close(moved, before, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(elsewhere, before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gap", [30.0, 95.0, 300.0])
def test_a_side_that_is_sure_keeps_the_digits_of_the_others(gap: float) -> None:
    """In float32 1 - q would be 0 there."""
    student, teacher = logits(4, 6)
    student[:, 1] += gap
    teacher[2:, 1] += gap
    labels = torch.ones(4, dtype=torch.int64)
    exact = DKD(temperature=1.0).losses_and_gradients(Softened(student), Dense(teacher), labels, 0.0)
    losses, gradient = DKD(temperature=1.0).losses_and_gradients(
        Softened(student.float()), Dense(teacher.float()), labels, 0.0)
    torch.testing.assert_close(losses.double(), exact[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.dense().double(), exact[1].dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["plain", "all"])
def test_over_a_vocabulary_it_is_the_same_in_pieces(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 6, 4)
    given = sides(**HEADS[head])
    terms: list[tuple[RowObjective, float]] = [(DKD(temperature=2.0), 0.7), (Labels(), 0.3), (Logits(), 0.1)]
    loss, _ = row_loss(terms, given.student, given.teacher, given.labels, 0.0)
    expected = textbook(terms, given.student, given.teacher, given.labels)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, given.leaves), strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_a_scheduled_temperature_follows_progress() -> None:
    student, teacher = logits()
    scheduled = DKD(temperature={"linear": [4.0, 1.0]})
    for progress, temperature in ((0.0, 4.0), (0.5, 2.5)):
        torch.testing.assert_close(scheduled.losses(student, Dense(teacher), labelled(), progress),
                                   DKD(temperature=temperature).losses(student, Dense(teacher), labelled(), 0.0))
    assert scheduled.temperatures == (4.0, 1.0)


def test_what_it_cannot_use_is_refused_in_words() -> None:
    student, teacher = logits()
    with pytest.raises(CompatibilityError, match=r"needs labels, and this batch has none.*use `logits`"):
        DKD().losses(student, Dense(teacher), None, 0.0)
    with pytest.raises(CompatibilityError, match="these are numbers; use `logits` with `divergence: mse`"):
        DKD().losses(student, Dense(teacher), torch.randn(7), 0.0)
    with pytest.raises(CompatibilityError, match="`dkd` needs a teacher's logits, and this batch has none"):
        DKD().losses(student, None, labelled(), 0.0)
    given = sides()
    for form in (top_k(given.teacher, 5), draw(given.teacher, 5)):
        with pytest.raises(CompatibilityError, match=r"`dkd` cannot be computed from .* or use `logits`"):
            row_loss([(DKD(temperature=1.0), 1.0)], given.student, form, given.labels, 0.0)


@pytest.mark.parametrize("classes", [1, 2])
def test_too_few_classes_are_refused(classes: int) -> None:
    (problem,) = DKD().problems(Dims(classes), Dims(classes), {})
    assert f"has {classes}; it takes three or more. Use `logits`" in problem
    assert DKD().problems(Dims(3), Dims(3), {}) == []
    assert "3 outputs, the teacher 4" in DKD().problems(Dims(3), Dims(4), {})[0]
    assert DKD().problems(Dims(3), None, {}) == ["`dkd` needs a teacher"]


@pytest.mark.parametrize(("options", "words"), [
    ({"alpha": -1.0}, "alpha: got -1.0; expected a number from 0"),
    ({"beta": float("nan")}, "beta: got nan"),
    ({"alpha": 0.0, "beta": 0.0}, "nothing would be learnt"),
    ({"temperature": 0.0}, "expected numbers above 0"),
])
def test_options_that_cannot_be_meant_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        DKD(**options)
