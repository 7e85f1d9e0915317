"""`logits` over the classes that either model thinks likely, and the labelled one: held against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Logits
from stilla.objectives.base import Softened
from stilla.rows import row_loss
from stilla.signals import Dense, Head, Headed, TopK
from tests.objectives.test_logits import DIVERGENCES, gradient_oracle, oracle

ROWS, CLASSES = 6, 30
LABELS = torch.tensor([3, -100, 29, 0, 7, -100])


def logits(seed: int, *size: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*(size or (ROWS, CLASSES)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def members(student: np.ndarray, teacher: np.ndarray, label: int, k: int) -> np.ndarray:
    """The classes of a row's union, by sets."""
    best = set(np.argsort(-student)[:k]) | set(np.argsort(-teacher)[:k]) | ({label} if label >= 0 else set())
    return np.array(sorted(best))


@pytest.mark.parametrize("k", [1, 4, 15])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_it_is_the_divergence_given_that_it_is_one_of_the_union(divergence: Any, k: int) -> None:
    student, teacher = logits(1), logits(2)
    made = Logits(divergence=divergence, temperature=2.0, union=k)
    found, gradient = made.losses_and_gradients(Softened(student), Dense(teacher), LABELS, 0.0)
    dense = torch.zeros_like(student)
    total = gradient.added(None, torch.tensor(1.0, dtype=torch.float64))
    dense.copy_(total)
    for row in range(ROWS):
        own = members(student[row].numpy(), teacher[row].numpy(), int(LABELS[row]), k)
        s, t = student[row, own].numpy()[None], teacher[row, own].numpy()[None]
        assert found[row].item() == pytest.approx(oracle(divergence, s, t, 2.0)[0], rel=1e-6, abs=1e-12)
        expected = np.zeros(CLASSES)
        expected[own] = gradient_oracle(divergence, s, t, 2.0)[0]
        np.testing.assert_allclose(dense[row].numpy(), expected, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(made.losses(student, Dense(teacher), LABELS, 0.0), found)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_union_of_all_items_equals_the_full_softmax(divergence: Any) -> None:
    """Check 5 of recommendation: nothing is left out, so nothing is biased."""
    student, teacher = logits(1), logits(2)
    some = Logits(divergence=divergence, union=CLASSES).losses_and_gradients(Softened(student), Dense(teacher), LABELS, 0.0)
    whole = Logits(divergence=divergence).losses_and_gradients(Softened(student), Dense(teacher), LABELS, 0.0)
    one = torch.tensor(1.0, dtype=torch.float64)
    torch.testing.assert_close(some[0], whole[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(some[1].added(None, one), whole[1].added(None, one), rtol=1e-9, atol=1e-12)


def test_its_bias_is_the_mass_outside_and_what_lies_there() -> None:
    """KL(p || q) = KL of the masses within and outside + P KL(within) + (1 - P) KL(outside)."""
    student, teacher = logits(3, scale=1.0), logits(4, scale=1.0)
    k = 5
    within = Logits(temperature=1.0, union=k).losses(student, Dense(teacher), LABELS, 0.0).numpy()
    whole = Logits(temperature=1.0).losses(student, Dense(teacher), LABELS, 0.0).numpy()
    for row in range(ROWS):
        s, t = student[row].numpy(), teacher[row].numpy()
        own = members(s, t, int(LABELS[row]), k)
        others = np.setdiff1d(np.arange(CLASSES), own)
        p, q = (np.array([np.exp(logsumexp(z[own]) - logsumexp(z)), np.exp(logsumexp(z[others]) - logsumexp(z))])
                for z in (t, s))
        outside = np.exp(log_softmax(t[others])) @ (log_softmax(t[others]) - log_softmax(s[others]))
        assert whole[row] == pytest.approx((p * np.log(p / q)).sum() + p[0] * within[row] + p[1] * outside, rel=1e-9)


def test_the_students_own_favourites_are_compared_and_no_other_class_has_a_gradient() -> None:
    """A subset of the teacher's alone would leave where it stands what the student wrongly ranks first."""
    student, teacher = torch.zeros(1, CLASSES, dtype=torch.float64), torch.zeros(1, CLASSES, dtype=torch.float64)
    student[0, 20], student[0, 21], teacher[0, 5] = 6.0, 5.0, 8.0
    student.requires_grad_()
    loss = Logits(union=1).losses(student, Dense(teacher), torch.tensor([9]), 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient.nonzero()[:, 1].tolist() == [5, 9, 20]
    assert gradient[0, 20] > 0 > gradient[0, 5]


def test_over_a_catalogue_it_is_the_same_and_has_the_same_gradient() -> None:
    """In chunks of rows, from hidden states and a head, with another term beside it."""
    hidden, weight = logits(5, ROWS, 8).requires_grad_(), logits(6, CLASSES, 8).requires_grad_()
    teacher = Headed(logits(7, ROWS, 4), Head(logits(8, CLASSES, 4)))
    terms = [(Logits(union=4), 0.25), (Logits(), 0.5)]
    headed, sums = row_loss(terms, Headed(hidden, Head(weight)), teacher, LABELS, 0.0)
    dense, others = row_loss(terms, Dense(hidden @ weight.T), teacher.dense(), LABELS, 0.0)
    torch.testing.assert_close(headed, dense)
    torch.testing.assert_close(sums, others)
    for one, other in zip(torch.autograd.grad(headed, (hidden, weight)), torch.autograd.grad(dense, (hidden, weight))):
        torch.testing.assert_close(one, other)


def test_classes_that_both_exclude_teach_nothing_and_stay_finite() -> None:
    student, teacher = logits(1), logits(2)
    student[:, 3:], teacher[:, 3:] = -torch.inf, -torch.inf
    student.requires_grad_()
    loss = Logits(union=5).losses(student, Dense(teacher), None, 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(loss, Logits().losses(student[:, :3], Dense(teacher[:, :3]), None, 0.0))
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("options", "why"), [
    ({"union": 0}, "union: got 0"), ({"union": 4, "divergence": "mse"}, "`mse` is about all of a row"),
    ({"union": 4, "divergence": "hard"}, "`hard` is about all"),
    ({"union": 4, "standardise": True}, "standardise is about all"),
])
def test_what_cannot_be_of_some_classes_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        Logits(**options)


def test_a_teacher_that_tells_its_own_favourites_only_cannot_say_what_it_thinks_of_the_students() -> None:
    made = Logits(union=3)
    stored = TopK(torch.tensor([[0, 1]]), torch.tensor([[-0.7, -0.7]]), torch.tensor([-9.0]), 2.0)
    assert TopK not in made.accepts
    with pytest.raises(CompatibilityError, match=r"`logits` with forward_kl and union needs a teacher's logits"):
        made.losses(logits(1, 1, 5), stored, None, 0.0)
