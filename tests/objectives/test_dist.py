"""Correlation over classes and over a step's rows: the paper in NumPy, and that parts of a step add up to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import softmax

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import DIST
from stilla.signals import Dense, Dims
from stilla.training.reduction import Step
from tests.objectives.test_logits import logits
from tests.rows.setting import sides, top_k


def oracle(student: np.ndarray, teacher: np.ndarray, beta: float, gamma: float, temperature: float) -> float:
    """Huang et al. 2022, sec. 3, in the words of NumPy."""
    q, p = (softmax(one / temperature, -1) for one in (student, teacher))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return float(temperature**2 * (beta * inter + gamma * intra))


def slopes(student: np.ndarray, *others: object, step: float = 1e-5) -> np.ndarray:
    """By differences of the oracle."""
    found = np.zeros_like(student)
    for place in np.ndindex(student.shape):
        ends = []
        for sign in (1, -1):
            moved = student.copy()
            moved[place] += sign * step
            ends.append(oracle(moved, *others))  # type: ignore[arg-type]
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def value(objective: DIST, student: torch.Tensor, teacher: torch.Tensor, progress: float = 0.0) -> torch.Tensor:
    return objective.loss(objective.sums(student, Dense(teacher), None, progress), progress)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
def test_value_and_gradient_are_the_papers(beta: float, gamma: float, temperature: float) -> None:
    student, teacher = logits()
    student.requires_grad_()
    loss = value(DIST(beta=beta, gamma=gamma, temperature=temperature), student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    given = (student.detach().numpy(), teacher.numpy(), beta, gamma, temperature)
    assert loss.item() == pytest.approx(oracle(*given), rel=1e-6)
    np.testing.assert_allclose(gradient.numpy(), slopes(*given), rtol=1e-5, atol=1e-8)


def test_gradients_pass_gradcheck() -> None:
    student, teacher = logits(4, 5, 1.0)
    assert torch.autograd.gradcheck(lambda z: value(DIST(), z, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_step_is_cut_into_changes_nothing(dtype: torch.dtype) -> None:
    student, teacher = (one.to(dtype) for one in logits(11, 6))
    objective = DIST(temperature=2.0)
    whole = student.clone().requires_grad_()
    expected = value(objective, whole, teacher)
    (gradient,) = torch.autograd.grad(expected, whole)
    for borders in ([0, 4, 11], [0, 1, 2, 2, 11], [0, 0, 11]):
        parts = list(pairwise(borders))
        sums = sum(objective.sums(student[a:b], Dense(teacher[a:b]), None, 0.0) for a, b in parts)
        values, found = [], torch.zeros_like(student)
        for a, b in parts:
            one = student[a:b].clone().requires_grad_()
            step = Step({}, micro_batches=len(parts), whole=lambda name, part, sums=sums: sums)
            own = objective.sums(one, Dense(teacher[a:b]), None, 0.0)
            part = step.of_sums("dist", own, lambda whole: objective.loss(whole, 0.0))
            (found[a:b],) = torch.autograd.grad(part, one)
            values.append(part.detach())
        close = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
        torch.testing.assert_close(torch.stack(values).sum(), expected.detach(), **close)
        torch.testing.assert_close(found, gradient, **close)


def test_processes_share_a_step() -> None:
    """Gradients are averaged over them, values too."""
    student, teacher = logits(8, 5)
    objective, whole = DIST(), student.clone().requires_grad_()
    expected = value(objective, whole, teacher)
    (gradient,) = torch.autograd.grad(expected, whole)
    parts = [student[:3].clone().requires_grad_(), student[3:].clone().requires_grad_()]
    sums = [objective.sums(one, Dense(told), None, 0.0) for one, told in zip(parts, (teacher[:3], teacher[3:]), strict=True)]
    total = (sums[0] + sums[1]).detach()
    step = Step({}, processes=2, whole=lambda name, part: total)
    values = [step.of_sums("dist", own, lambda whole: objective.loss(whole, 0.0)) for own in sums]
    for one, own, expected_part in zip(parts, values, (gradient[:3], gradient[3:]), strict=True):
        torch.testing.assert_close(torch.autograd.grad(own, one)[0] / 2, expected_part, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close((values[0] + values[1]).detach() / 2, expected.detach())


def test_a_linear_function_of_the_teachers_probabilities_is_a_perfect_match() -> None:
    _, teacher = logits(9, 5)
    p = teacher.softmax(-1)
    mixed = (0.6 * p + 0.4 * p.new_full((5,), 0.2)).log()  # half way to even odds
    assert value(DIST(), mixed, teacher).abs() < 1e-9
    assert value(DIST(), teacher, teacher).abs() < 1e-9
    assert value(DIST(), mixed, teacher.flip(0)) > 0.1


def test_the_order_of_rows_and_of_classes_is_irrelevant() -> None:
    student, teacher = logits(9, 5)
    rows, classes = torch.randperm(9), torch.randperm(5)
    torch.testing.assert_close(value(DIST(), student[rows][:, classes], teacher[rows][:, classes]),
                               value(DIST(), student, teacher), rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_differ_correlates_with_nothing(dtype: torch.dtype) -> None:
    """A head of zeros; a step of one row; a class that is the same in all rows."""
    student, teacher = (one.to(dtype) for one in logits(6, 5))
    for ours, theirs in ((torch.zeros_like(student), teacher), (student[:1], teacher[:1]),
                         (student[:1].expand(6, 5), teacher), (student, teacher[:1].expand(6, 5))):
        for gamma, beta in ((1.0, 0.0), (1.0, 1.0)):
            one = ours.clone().requires_grad_()
            loss = value(DIST(beta=beta, gamma=gamma), one, theirs)
            (gradient,) = torch.autograd.grad(loss, one)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
            if not beta:
                assert loss.item() == pytest.approx(1.0)
                assert not gradient.any()


def test_a_class_that_hardly_anybody_has_still_correlates() -> None:
    """Probabilities of 1e-8: variances of 1e-17 are differences of larger numbers."""
    student, teacher = logits(40, 5, 1.0)
    student[:, 3] -= 18
    teacher[:, 3] -= 18
    found = value(DIST(beta=0.0), student.float(), teacher.float()).item()
    assert found == pytest.approx(oracle(student.numpy(), teacher.numpy(), 0.0, 1.0, 1.0), rel=1e-4)


def test_a_scheduled_temperature_follows_progress() -> None:
    student, teacher = logits()
    scheduled = DIST(temperature={"linear": [4.0, 1.0]})
    torch.testing.assert_close(value(scheduled, student, teacher, 0.5), value(DIST(temperature=2.5), student, teacher))
    assert scheduled.temperatures == (4.0, 1.0)


def test_what_it_cannot_use_is_refused_in_words() -> None:
    given = sides()
    with pytest.raises(CompatibilityError, match="`dist` needs a teacher's logits, and this batch has only TopK, a part"):
        DIST().sums(given.student.dense().logits, top_k(given.teacher, 5), None, 0.0)
    (problem,) = DIST().problems(Dims(2), Dims(2), {})
    assert "any two numbers correlate fully. It takes three or more" in problem
    assert DIST().problems(Dims(3), Dims(3), {}) == []
    assert DIST().problems(Dims(3), None, {}) == ["`dist` needs a teacher"]
    (problem,) = DIST().unseen(vocabulary=True)
    assert "over a vocabulary" in problem


@pytest.mark.parametrize(("options", "words"), [
    ({"gamma": -1.0}, "gamma: got -1.0; expected a number from 0"),
    ({"beta": 0.0, "gamma": 0.0}, "nothing would be learnt"),
    ({"temperature": {"linear": [1.0, 0.0]}}, "expected numbers above 0"),
])
def test_options_that_cannot_be_meant_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        DIST(**options)
