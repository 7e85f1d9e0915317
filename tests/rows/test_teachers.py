"""Teachers that tell a part of their distribution: what their losses promise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Logits
from stilla.objectives.base import Softened
from stilla.rows import row_loss
from stilla.signals import Samples, TopK
from tests.rows.setting import CLASSES, DIVERGENCES, draw, sides, top_k


def value(objective: Logits, given: Any, teacher: Any) -> torch.Tensor:
    return row_loss([(objective, 1.0)], given.student, teacher, None, 0.0)[0]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_classes_as_top_k_equal_dense(divergence: Any, temperature: float) -> None:
    given = sides()
    objective = Logits(divergence=divergence, temperature=temperature)
    dense = value(objective, given, given.teacher)
    sparse = value(objective, given, top_k(given.teacher, CLASSES, temperature))
    torch.testing.assert_close(sparse, dense, rtol=1e-11, atol=0)
    for one, other in zip(torch.autograd.grad(sparse, given.leaves), torch.autograd.grad(dense, given.leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_more_classes_never_make_it_smaller_and_all_bound_it(divergence: Any) -> None:
    given = sides()
    objective = Logits(divergence=divergence, temperature=1.0)
    values = [value(objective, given, top_k(given.teacher, k)).item() for k in (1, 2, 4, 8, 16, 30, CLASSES)]
    assert values[0] >= 0
    assert all(one <= other + 1e-10 for one, other in pairwise(values))
    assert values[-1] == pytest.approx(value(objective, given, given.teacher).item(), rel=1e-10)


def test_the_gradient_of_top_k_is_the_formula() -> None:
    """q_j - p_j inside, q_j (P - Q) / (1 - Q) outside."""
    given = sides(rows=4)
    logits = given.student.dense().logits.detach()
    teacher = top_k(given.teacher, 5)
    _, found = Logits(temperature=1.0).losses_and_gradients(Softened(logits), teacher, None, 0.0)
    q = logits.softmax(-1)
    p = given.teacher.dense().logits.softmax(-1)
    inside = torch.zeros_like(q, dtype=torch.bool).scatter_(-1, teacher.ids, True)
    mass_p, mass_q = ((one * inside).sum(-1, keepdim=True) for one in (p, q))
    expected = torch.where(inside, q - p, q * (mass_p - mass_q) / (1 - mass_q))
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-14)


def test_a_student_that_is_sure_keeps_the_digits_of_its_tail() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
    teacher = TopK(torch.tensor([[0]]), torch.tensor([[math.log(0.9)]]).double(), torch.tensor([math.log(0.1)]).double())
    exact = logits.log_softmax(-1)
    tail = exact[0, 1:].logsumexp(0).item()
    expected = 0.9 * (math.log(0.9) - exact[0, 0].item()) + 0.1 * (math.log(0.1) - tail)
    for dtype in (torch.float64, torch.float32):
        losses, found = Logits(temperature=1.0).losses_and_gradients(Softened(logits.to(dtype)), teacher, None, 0.0)
        gradients = found.dense()
        assert losses.item() == pytest.approx(expected, rel=1e-5)
        assert torch.isfinite(gradients).all()
        assert gradients[0, 0].item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("k", [3, 13])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("gap", "temperature"), [(95.0, 1.0), (120.0, 1.0), (400.0, 2.0), (3000.0, 1.0)])
def test_a_mass_outside_that_is_no_number_keeps_its_logarithm(
    divergence: Any, k: int, gap: float, temperature: float,
) -> None:
    """In float32 the student's softmax has zeros there; autograd in float64 says what should come."""
    torch.manual_seed(0)
    logits = torch.randn(4, 13, dtype=torch.float64)
    logits[:, 2] += gap
    logits[3, 2] -= gap  # and a row like any other
    told = torch.log_softmax(torch.randn(4, 13, dtype=torch.float64) / temperature, -1)
    ids = torch.tensor([[0, 2, 7]] * 4) if k == 3 else torch.arange(13).expand(4, 13)
    others = told.scatter(-1, ids, -torch.inf).logsumexp(-1)
    objective = Logits(divergence=divergence, temperature=temperature)
    teacher = TopK(ids, told.gather(-1, ids), others, temperature)
    exact = logits.clone().requires_grad_()
    expected = objective.losses(exact, teacher, None, 0.0)
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    small = TopK(ids, teacher.log_probs.float(), others.float(), temperature)
    losses, found = objective.losses_and_gradients(Softened(logits.float()), small, None, 0.0)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.dense().double(), gradient, rtol=1e-4, atol=1e-5)


def test_the_temperature_must_be_one_that_is_stored() -> None:
    given = sides()
    with pytest.raises(CompatibilityError, match=r"temperature 2, and the teacher's top-k were stored at 1.*store"):
        value(Logits(temperature=2.0), given, top_k(given.teacher, 5))
    with pytest.raises(CompatibilityError, match=r"temperature 2.*say nothing about other temperatures.*temperature: 1"):
        value(Logits(temperature=2.0), given, draw(given.teacher, 5))


@pytest.mark.parametrize("divergence", [one for one in DIVERGENCES if one != "forward_kl"])
def test_drawn_classes_are_refused_for_what_they_would_bias(divergence: Any) -> None:
    given = sides()
    for call in (lambda: value(Logits(divergence=divergence, temperature=1.0), given, draw(given.teacher, 5)),
                 lambda: Logits(divergence=divergence, temperature=1.0).losses(
                     given.student.dense().logits, draw(given.teacher, 5), None, 0.0)):
        with pytest.raises(CompatibilityError, match="forward_kl"):
            call()


@pytest.mark.slow
def test_drawn_classes_are_unbiased_in_value_and_gradient() -> None:
    given = sides(rows=3)
    objective = Logits(temperature=1.0)
    logits = given.student.dense().logits.detach()
    p = given.teacher.dense().logits.softmax(-1)
    exact, whole = objective.losses_and_gradients(Softened(logits), given.teacher.dense(), None, 0.0)
    m, times = 12, 2000
    found = [objective.losses_and_gradients(Softened(logits), draw(given.teacher, m, seed), None, 0.0)
             for seed in range(times)]
    values, gradients = torch.stack([one for one, _ in found]), torch.stack([one.dense() for _, one in found])
    log_q = logits.log_softmax(-1)
    spread = ((p * log_q.square()).sum(-1) - (p * log_q).sum(-1).square()).div(m * times).sqrt()
    assert ((values.mean(0) - exact).abs() <= 4.5 * spread).all()
    gradient = whole.dense()
    sigma = (p * (1 - p) / (m * times)).sqrt()
    often = p * m * times > 20  # a class that is drawn once in a while is not normal yet
    assert ((gradients.mean(0) - gradient).abs() <= 5 * sigma)[often].all()
    # E |p_hat - p|² = (1 - Σ p²) / m
    variance = (gradients - gradient).square().sum(-1).mean(0)
    torch.testing.assert_close(variance, (1 - p.square().sum(-1)) / m, rtol=0.1, atol=0)


def test_places_that_fill_a_row_up_have_no_influence() -> None:
    given = sides()
    teacher = draw(given.teacher, 8)
    more = Samples(torch.cat([teacher.ids, torch.full((len(teacher), 3), 7)], 1),
                   torch.cat([teacher.counts, torch.zeros(len(teacher), 3)], 1), teacher.entropy)
    one, other = (value(Logits(temperature=1.0), given, form) for form in (teacher, more))
    assert torch.equal(one, other)
    for before, after in zip(torch.autograd.grad(one, given.leaves), torch.autograd.grad(other, given.leaves), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-13, atol=1e-15)


def test_drawn_frequencies_that_are_the_teachers_probabilities_give_the_divergence() -> None:
    given = sides()
    p = given.teacher.dense().logits.softmax(-1)
    ids = torch.arange(CLASSES).expand(len(p), -1)
    teacher = Samples(ids, 1000 * p, -(p * p.log()).sum(-1))
    objective = Logits(temperature=1.0)
    torch.testing.assert_close(value(objective, given, teacher), value(objective, given, given.teacher), rtol=1e-10, atol=0)
