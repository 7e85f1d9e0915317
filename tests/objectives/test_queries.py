"""What a teacher finds against what a student finds: by an oracle, and in the cases where the answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Queries
from stilla.signals import Detections, Signals
from tests.objectives.test_objects import CLASSES, found


def signals(said: Detections) -> Signals:
    return Signals(detections=said)


def loss(student: Detections, teacher: Detections, **options: float) -> torch.Tensor:
    term = Queries(**options)
    return term.loss(term.sums(signals(student), signals(teacher), 0.0), 0.0)


def permuted(said: Detections, seed: int = 0) -> Detections:
    order = torch.randperm(said.logits.shape[1], generator=torch.Generator().manual_seed(seed))
    return Detections(said.logits[:, order].detach(), said.boxes[:, order].detach(), said.exclusive)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_student_that_is_its_teacher_has_no_loss_in_whatever_order(exclusive: bool) -> None:
    said = found(3, exclusive=exclusive)
    value = loss(said, permuted(said))
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    assert said.logits.grad is not None
    assert said.logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("exclusive", [*itertools.product([True, False], repeat=2)])
def test_a_fresh_student_has_a_finite_loss_and_gradients_for_both(exclusive: tuple[bool, bool]) -> None:
    student, teacher = found(2, exclusive=exclusive[0]), found(2, exclusive=exclusive[1], seed=9)
    value = loss(student, teacher)
    assert 0 < value.item() < 1e3
    value.backward()
    for one in (student.logits, student.boxes):
        assert one.grad is not None
        assert torch.isfinite(one.grad).all()
        assert one.grad.abs().max() > 1e-6


def test_classes_of_a_softmax_are_compared_without_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 7, CLASSES + 1, dtype=torch.float64) * 4
    logits[0, 0, 2] = 40.0  # nearly sure: no digit is lost
    logits[0, 1, -1] = 40.0
    z = Detections(logits, torch.rand(2, 7, 4), exclusive=True).independent()
    torch.testing.assert_close(z.sigmoid(), logits.softmax(-1)[..., :-1])
    others = torch.stack([logits[..., [one for one in range(CLASSES + 1) if one != kind]].logsumexp(-1)
                          for kind in range(CLASSES)], -1)
    torch.testing.assert_close(z, logits[..., :-1] - others)


def _giou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    low, high = [np.concatenate([one[:2] - one[2:] / 2, one[:2] + one[2:] / 2]) for one in (a, b)]
    shared = np.prod(np.clip(np.minimum(low[2:], high[2:]) - np.maximum(low[:2], high[:2]), 0, None))
    union = a[2] * a[3] + b[2] * b[3] - shared
    hull = np.prod(np.maximum(low[2:], high[2:]) - np.minimum(low[:2], high[:2]))
    return float(shared / union - (hull - union) / hull)


def oracle(student: Detections, teacher: Detections, temperature: float) -> float:
    """By trying all ways to pair, of a single picture with few guesses."""
    s, t = (one.independent()[0].detach().numpy() for one in (student, teacher))
    a, b = (one.boxes[0].detach().numpy() for one in (student, teacher))

    def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-x))

    sure = sigmoid(t).max(-1)
    taken = np.argsort(-sure, kind="stable")[: len(s)]

    def cost(mine: int, theirs: int) -> float:
        return float(sure[theirs] * (np.abs(sigmoid(s[mine]) - sigmoid(t[theirs])).sum()
                                     + 5 * np.abs(a[mine] - b[theirs]).sum() + 2 * (1 - _giou(a[mine], b[theirs]))))

    best = min(itertools.permutations(range(len(s)), len(taken)),
               key=lambda order: sum(cost(mine, theirs) for mine, theirs in zip(order, taken)))
    total = 0.0
    for mine in range(len(s)):
        partner = taken[best.index(mine)] if mine in best else None
        w = 0.0 if partner is None else sure[partner]
        p = np.zeros(CLASSES) if partner is None else sigmoid(t[partner] / temperature)
        q = sigmoid(s[mine] / temperature)
        with np.errstate(all="ignore"):
            kl = np.where(p > 0, p * np.log(p / q), 0) + (1 - p) * np.log((1 - p) / (1 - q))
        total += (w + 0.1 * (1 - w)) * temperature**2 * kl.sum()
        if partner is not None:
            total += w * (5 * np.abs(a[mine] - b[partner]).sum() + 2 * (1 - _giou(a[mine], b[partner])))
    return float(total / (sure.sum() + 1))


@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_equation_of_its_page_with_as_many_queries_or_not(ours: int, theirs: int, temperature: float) -> None:
    student, teacher = found(1, exclusive=True), found(1, exclusive=False, seed=5)
    few = [Detections(one.logits[:, :number], one.boxes[:, :number], one.exclusive)
           for one, number in ((student, ours), (teacher, theirs))]
    assert loss(*few, temperature=temperature).item() == pytest.approx(oracle(*few, temperature), rel=1e-6)


def test_sums_of_parts_are_those_of_the_step() -> None:
    student, teacher, term = found(4, exclusive=False), found(4, exclusive=False, seed=3), Queries()

    def some(said: Detections, rows: slice) -> Signals:
        return signals(Detections(said.logits[rows], said.boxes[rows], said.exclusive))

    every = term.sums(signals(student), signals(teacher), 0.0)
    parts = [term.sums(some(student, rows), some(teacher, rows), 0.0) for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(every, sum(parts))


def test_every_layer_is_held_against_the_teachers_last() -> None:
    student, before, teacher = (found(2, exclusive=False, seed=seed) for seed in (1, 2, 3))
    both = Detections(student.logits, student.boxes, earlier=(before,))
    each = [loss(one, teacher).item() for one in (student, before)]
    assert loss(both, teacher).item() == pytest.approx(sum(each))


def test_other_classes_and_missing_detections_are_refused() -> None:
    fewer = Detections(torch.rand(1, 4, 2), torch.rand(1, 4, 4))
    with pytest.raises(CompatibilityError, match="the student has 2 classes, the teacher 5"):
        loss(fewer, found(1, exclusive=False))
    with pytest.raises(CompatibilityError, match="task: object-detection"):
        Queries().sums(Signals(), Signals(), 0.0)
    with pytest.raises(RecipeError, match="temperature"):
        Queries(temperature=0.0)
