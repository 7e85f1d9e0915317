"""`logits` with each side divided by its own spread: value, gradient, and what it may not depend on."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Labels, Logits
from stilla.objectives.base import RowObjective, Softened
from stilla.objectives.logits import Divergence
from stilla.rows import row_loss
from stilla.signals import Dense, Dims, Headed
from tests.objectives.test_logits import logits, oracle
from tests.rows.setting import HEADS, draw, in_pieces, sides, textbook, top_k

DIVERGENCES = tuple(one for one in get_args(Divergence) if one != "hard")  # which knows no size of logits


def made(divergence: Any, temperature: float = 2.0) -> Logits:
    return Logits(divergence=divergence, temperature=None if divergence == "mse" else temperature, standardise=True)


def z_scores(values: np.ndarray) -> np.ndarray:
    """Sun et al. 2024, algorithm 1: the deviation over all classes, not over one less."""
    return (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)


def slopes(divergence: str, student: np.ndarray, teacher: np.ndarray, temperature: float, step: float = 1e-5) -> np.ndarray:
    """By differences: independent of autograd and of any formula."""
    found = np.zeros_like(student)
    for column in range(student.shape[1]):
        ends = []
        for sign in (1, -1):
            moved = student.copy()
            moved[:, column] += sign * step
            ends.append(oracle(divergence, z_scores(moved), z_scores(teacher), temperature))
        found[:, column] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_value_and_gradient_are_those_of_the_z_scores(divergence: str, temperature: float) -> None:
    student, teacher = logits(7, 6)
    student.requires_grad_()
    objective = made(divergence, temperature)
    losses = objective.losses(student, Dense(teacher), None, 0.0)
    losses.sum().backward()
    ours, theirs = student.detach().numpy(), teacher.numpy()
    np.testing.assert_allclose(losses.detach().numpy(), oracle(divergence, z_scores(ours), z_scores(theirs), temperature),
                               rtol=1e-6)
    np.testing.assert_allclose(student.grad.numpy(), slopes(divergence, ours, theirs, temperature), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_students_size_and_level_are_irrelevant(divergence: str) -> None:
    student, teacher = logits(7, 6)
    objective = made(divergence)
    before = objective.losses(student, Dense(teacher), None, 0.0)
    for size, level in ((0.3, 7.5), (40.0, -3.25)):
        after = objective.losses(size * student + level, Dense(teacher), None, 0.0)
        torch.testing.assert_close(after, before, rtol=1e-6, atol=0)
    torch.testing.assert_close(objective.losses(student, Dense(9 * teacher + 1), None, 0.0), before, rtol=1e-6, atol=0)
    plain = Logits(divergence=divergence)  # so that the test could fail
    assert not torch.allclose(plain.losses(2 * student, Dense(teacher), None, 0.0),
                              plain.losses(student, Dense(teacher), None, 0.0), rtol=1e-2)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_there_is_no_gradient_along_the_students_own_logits(divergence: str) -> None:
    student, teacher = logits(7, 6)
    _, gradient = made(divergence).losses_and_gradients(Softened(student), Dense(teacher), None, 0.0)
    dense = gradient.dense()
    assert dense.abs().sum(-1).min() > 1e-3
    assert (dense * student).sum(-1).abs().max() < 1e-7
    assert dense.sum(-1).abs().max() < 1e-14


def test_mse_of_z_scores_is_what_two_rows_lack_in_correlation() -> None:
    student, teacher = logits(7, 6)
    found = made("mse").losses(student, Dense(teacher), None, 0.0).numpy()
    expected = [2 - 2 * np.corrcoef(a, b)[0, 1] for a, b in zip(student.numpy(), teacher.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_of_the_same_shape_is_a_perfect_match(divergence: str) -> None:
    student, _ = logits(7, 6)
    losses, gradient = made(divergence).losses_and_gradients(Softened(student), Dense(3 * student + 1), None, 0.0)
    assert losses.abs().max() < 1e-9
    # |p - q| has a corner there; the others are flat
    assert divergence == "tvd" or gradient.dense().abs().max() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_equal_logits_have_a_gradient_and_it_is_a_number(divergence: str, dtype: torch.dtype) -> None:
    """A head that begins with zeros."""
    _, teacher = (one.to(dtype) for one in logits(7, 6))
    losses, gradient = made(divergence).losses_and_gradients(Softened(torch.zeros_like(teacher)), Dense(teacher), None, 0.0)
    dense = gradient.dense()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(dense).all()
    assert ((dense.argmin(-1) == teacher.argmax(-1)) | (divergence == "tvd")).all()


@pytest.mark.parametrize("head", ["plain", "all"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_over_a_vocabulary_it_is_the_same_in_pieces(divergence: Any, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 6, 4)
    given = sides(**HEADS[head])
    terms: list[tuple[RowObjective, float]] = [(made(divergence), 0.7), (Labels(), 0.3), (Logits(temperature=1.0), 0.1)]
    loss, _ = row_loss(terms, given.student, given.teacher, given.labels, 0.0)
    expected = textbook(terms, given.student, given.teacher, given.labels)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, given.leaves), strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_over_a_vocabulary_in_float32_it_stays_near_the_textbook() -> None:
    given, exact = sides(rows=200, dtype=torch.float32), sides(rows=200)
    for side in ("student", "teacher"):
        getattr(exact, side).hidden.data.copy_(getattr(given, side).hidden.detach())
        getattr(exact, side).head.weight.data.copy_(getattr(given, side).head.weight.detach())
    terms: list[tuple[RowObjective, float]] = [(made("forward_kl"), 1 / 200)]
    loss, _ = row_loss(terms, given.student, given.teacher, None, 0.0)
    expected = textbook(terms, exact.student, exact.teacher, None)
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, exact.leaves), strict=True):
        assert (one.double() - other).norm() <= 2e-6 * other.norm()


def test_a_part_of_a_distribution_has_no_spread_and_is_refused_by_name() -> None:
    given = sides()
    for form in (top_k(given.teacher, 5), draw(given.teacher, 5)):
        words = f"`logits` with forward_kl and standardise .* a teacher's {type(form).__name__}; .* leave `standardise` out"
        with pytest.raises(CompatibilityError, match=words):
            row_loss([(made("forward_kl", 1.0), 1.0)], given.student, form, None, 0.0)
        with pytest.raises(CompatibilityError, match=f"only {type(form).__name__}, a part"):
            made("forward_kl", 1.0).losses(given.student.dense().logits, form, None, 0.0)
    assert made("jsd").temperatures == ()  # none that a cache would have to know
    assert isinstance(given.teacher, Headed)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("divergence", ["forward_kl", "mse"])
def test_few_classes_are_refused_with_the_way_out(divergence: str, classes: int) -> None:
    (problem,) = made(divergence).problems(Dims(classes), Dims(classes), {})
    assert f"a row of {classes} classes" in problem
    assert "Leave `standardise` out" in problem
    assert made(divergence).problems(Dims(4), Dims(4), {}) == []
    (other,) = made(divergence).problems(Dims(4), Dims(5), {})
    assert "the student has 4 outputs, the teacher 5" in other


def test_a_number_is_refused_too() -> None:
    assert "more than three" in made("mse").problems(Dims(1), Dims(1), {})[0]
    assert "one output" in made("forward_kl").problems(Dims(1), Dims(1), {})[0]
