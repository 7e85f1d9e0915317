"""The order of a teacher's favourites, held against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Listwise
from stilla.rows import row_loss
from stilla.signals import Dense, Dims, Head, Headed, TopK


def logits(seed: int, rows: int = 6, classes: int = 12) -> Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(s: np.ndarray, t: np.ndarray, top: int) -> float:
    left, total = list(range(len(s))), 0.0
    for best in np.argsort(-t)[:top]:
        total -= s[best] - np.log(np.exp(s[left]).sum())
        left.remove(int(best))
    return total / min(top, len(s))


@pytest.mark.parametrize("top", [1, 4, 12, 50])
def test_it_is_the_likelihood_of_drawing_the_favourites_in_order(top: int) -> None:
    student, teacher = logits(1), logits(2)
    found = Listwise(top=top).losses(student, Dense(teacher), None, 0.0)
    expected = [oracle(*row, top) for row in zip(student.numpy(), teacher.numpy())]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: Listwise(top=top).losses(one, Dense(teacher), None, 0.0), student)


def test_only_the_order_of_the_favourites_counts() -> None:
    student, teacher = logits(1), logits(2)
    one = Listwise(top=3).losses(student, Dense(teacher), None, 0.0)
    assert torch.equal(Listwise(top=3).losses(student, Dense(5 * teacher - 3), None, 0.0), one)
    best = teacher.topk(3).indices
    others = (teacher.min() - 1 + torch.rand(teacher.shape, dtype=torch.float64)).scatter(1, best, teacher.gather(1, best))
    assert torch.equal(Listwise(top=3).losses(student, Dense(others), None, 0.0), one)
    assert not torch.equal(Listwise(top=3).losses(student, Dense(-teacher), None, 0.0), one)


def test_a_teachers_stored_favourites_teach_the_same() -> None:
    student, teacher = logits(1), logits(2)
    best = teacher.log_softmax(-1).topk(5)
    ids, order = best.indices.sort(-1)  # as they are stored
    stored = TopK(ids, best.values.gather(-1, order), torch.zeros(6))
    whole = Listwise(top=4).losses(student, Dense(teacher), None, 0.0)
    torch.testing.assert_close(Listwise(top=4).losses(student, stored, None, 0.0), whole)
    with pytest.raises(CompatibilityError, match=r"compares the 7 likeliest classes, and 5 were stored; use `top: 5`"):
        Listwise(top=7).losses(student, stored, None, 0.0)


def test_over_a_vocabulary_it_is_the_same_and_has_the_same_gradient() -> None:
    hidden, weight, teacher = logits(3, 6, 5).requires_grad_(), logits(4, 12, 5).requires_grad_(), logits(2)
    terms = [(Listwise(top=3), 0.25)]
    headed, sums = row_loss(terms, Headed(hidden, Head(weight)), Dense(teacher), None, 0.0)
    dense, others = row_loss(terms, Dense(hidden @ weight.T), Dense(teacher), None, 0.0)
    torch.testing.assert_close(headed, dense)
    torch.testing.assert_close(sums, others)
    for one, other in zip(torch.autograd.grad(headed, (hidden, weight)), torch.autograd.grad(dense, (hidden, weight))):
        torch.testing.assert_close(one, other)


def test_logits_of_any_size_have_a_finite_gradient() -> None:
    student = (1e4 * logits(1)).float().requires_grad_()
    Listwise().losses(student, Dense(logits(2)), None, 0.0).sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_what_it_cannot_compare_is_said() -> None:
    with pytest.raises(RecipeError, match=r"top: got 0; expected a number from 1"):
        Listwise(top=0)
    assert "takes three or more" in Listwise().problems(Dims(2), Dims(2), {})[0]
    assert "needs a teacher" in Listwise().problems(Dims(9), None, {})[0]
