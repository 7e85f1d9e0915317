"""Sets of masks by an oracle in float64, and where the answer is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Masks, Segments
from stilla.signals import Segments as Found
from stilla.signals import Signals

CLASSES, QUERIES, GRID = 3, 6, (4, 5)


def found(batch: int, seed: int = 1, queries: int = QUERIES) -> Found:
    torch.manual_seed(seed)
    logits = torch.randn(batch, queries, CLASSES + 1, dtype=torch.float64) * 2
    masks = torch.randn(batch, queries, *GRID, dtype=torch.float64) * 3
    return Found(logits.requires_grad_(), masks.requires_grad_())


def labels(counts: tuple[int, ...], seed: int = 0, *, soft: bool = False) -> torch.Tensor:
    torch.manual_seed(seed)
    made = torch.zeros(len(counts), max(1, *counts), 1 + GRID[0] * GRID[1], dtype=torch.float64)
    made[..., 0] = -100
    for row, count in zip(made, counts):
        row[:count, 0] = torch.randint(0, CLASSES, (count,)).double()
        shares = torch.rand(count, GRID[0] * GRID[1], dtype=torch.float64)
        row[:count, 1:] = shares if soft else shares.round()
    return made


def total(said: Found, target: torch.Tensor, **options: float) -> torch.Tensor:
    return Segments(**options).total(Signals(segments=said, labels=target), 0.0)


def loss(student: Found, teacher: Found, **options: float) -> torch.Tensor:
    term = Masks(**options)
    return term.loss(term.sums(Signals(segments=student), Signals(segments=teacher), 0.0), 0.0)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0) + np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0)


def _far(m: NDArray[np.float64], t: NDArray[np.float64]) -> tuple[float, float]:
    s = _sigmoid(m)
    return float(_kl(t, s).mean()), float(1 - (2 * (s * t).sum() + 1) / ((s**2).sum() + (t**2).sum() + 1))


@pytest.mark.parametrize("soft", [False, True])
def test_what_the_data_say_is_learnt_by_the_equation_of_its_page(soft: bool) -> None:
    said, target = found(1), labels((4,), soft=soft)
    z, m = said.logits[0].detach().numpy(), said.masks[0].flatten(1).detach().numpy()
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    kinds, shares = target[0, :, 0].numpy().astype(int), target[0, :, 1:].numpy()

    def cost(mine: int, theirs: int) -> float:
        return float(-2 * p[mine, kinds[theirs]] + 5 * sum(_far(m[mine], shares[theirs])))

    best = min(itertools.permutations(range(QUERIES), 4), key=lambda order: sum(map(cost, order, range(4))))
    goal = np.full(QUERIES, CLASSES)
    goal[list(best)] = kinds
    expected = 2 * sum((0.1 if kind == CLASSES else 1) * -np.log(p[one, kind]) for one, kind in enumerate(goal))
    expected += sum(5 * sum(_far(m[mine], shares[theirs])) for theirs, mine in enumerate(best))
    assert total(said, target).item() == pytest.approx(float(expected), rel=1e-9)


def test_of_whole_places_the_first_part_is_the_cross_entropy() -> None:
    said, target = found(1, seed=7, queries=1), labels((1,))
    crossed = torch.nn.functional.binary_cross_entropy_with_logits(said.masks[0, 0].flatten(), target[0, 0, 1:])
    assert total(said, target, classes=0.0, mask=1.0, dice=0.0).item() == pytest.approx(crossed.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_answer_costs_nothing_but_its_sureness(seed: int) -> None:
    target = labels((3, 2), seed, soft=True)
    logits = torch.full((2, QUERIES, CLASSES + 1), -40.0, dtype=torch.float64)
    masks = torch.full((2, QUERIES, *GRID), -40.0, dtype=torch.float64)
    logits[..., -1] = 40
    for place, row in enumerate(target):
        there = row[row[:, 0] >= 0]
        for guess, one in enumerate(there.flip(0)):
            logits[place, guess + 1] = -40.0
            logits[place, guess + 1, int(one[0])] = 40
            masks[place, guess + 1] = torch.logit(one[1:]).unflatten(0, GRID)
    assert total(Found(logits, masks), target).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_what_a_teacher_finds_is_learnt_by_the_equation_of_its_page(ours: int, theirs: int, temperature: float) -> None:
    student, teacher = found(1, queries=ours), found(1, seed=5, queries=theirs)
    s, t = (one.independent()[0].detach().numpy() for one in (student, teacher))
    m, places = (one.masks[0].flatten(1).detach().numpy() for one in (student, teacher))
    places, sure = _sigmoid(places), _sigmoid(t).max(-1)
    taken = np.argsort(-sure, kind="stable")[:ours]

    def cost(mine: int, yours: int) -> float:
        return float(sure[yours] * (2 * np.abs(_sigmoid(s[mine]) - _sigmoid(t[yours])).sum()
                                    + 5 * sum(_far(m[mine], places[yours]))))

    best = min(itertools.permutations(range(ours), len(taken)), key=lambda order: sum(map(cost, order, taken)))
    expected = 0.0
    for mine in range(ours):
        partner = taken[best.index(mine)] if mine in best else None
        w = 0.0 if partner is None else sure[partner]
        p = np.zeros(CLASSES) if partner is None else _sigmoid(t[partner] / temperature)
        kl = _kl(p, _sigmoid(s[mine] / temperature)).sum()
        expected += 2 * (w + 0.1 * (1 - w)) * temperature**2 * kl
        expected += 0.0 if partner is None else w * 5 * sum(_far(m[mine], places[partner]))
    value = loss(student, teacher, temperature=temperature)
    assert value.item() == pytest.approx(float(expected / (sure.sum() + 1)), rel=1e-6)


def test_a_student_that_is_its_teacher_has_no_loss_in_whatever_order() -> None:
    said, order = found(3), torch.randperm(QUERIES, generator=torch.Generator().manual_seed(0))
    value = loss(said, Found(said.logits[:, order].detach(), said.masks[:, order].detach()))
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    for one in (said.logits, said.masks):
        assert one.grad is not None
        assert one.grad.abs().max() < 1e-6
    fresh = found(3, seed=8)
    loss(fresh, said).backward()
    assert all(one.grad is not None and 1e-6 < one.grad.abs().max() < 1e3 for one in (fresh.logits, fresh.masks))


@pytest.mark.slow
def test_free_numbers_end_at_the_teachers_answers_as_sure_as_it_is() -> None:
    student, teacher = found(1, seed=8), found(1, seed=5)
    steps = torch.optim.Adam([student.logits, student.masks], lr=0.1)
    for _ in range(200):
        steps.zero_grad()
        value = loss(student, Found(teacher.logits.detach(), teacher.masks.detach()))
        value.backward()
        steps.step()
    assert value.item() < 0.02
    sure, known = (one.independent()[0].detach().sigmoid().amax(-1).sort().values for one in (student, teacher))
    assert (sure - known).abs().max() < 0.05


def test_what_a_teacher_is_not_sure_of_moves_no_mask() -> None:
    student, teacher = found(1), found(1, seed=3)
    logits = teacher.logits.detach().clone()
    logits[0, 1:, :-1] = -60.0  # only the first guess is of anything
    (gradient,) = torch.autograd.grad(loss(student, Found(logits, teacher.masks.detach()), classes=0.0), student.masks)
    assert ((gradient[0].abs().amax((-2, -1)) > 1e-9).sum()) == 1


def test_the_sum_of_parts_is_that_of_the_whole() -> None:
    target, said, teacher, term = labels((3, 0, 5, 1)), found(4), found(4, seed=3), Masks()

    def some(one: Found, rows: slice) -> Found:
        return Found(one.logits[rows], one.masks[rows])

    parts = (slice(0, 1), slice(1, 4))
    whole = total(said, target).item()
    assert whole == pytest.approx(sum(total(some(said, rows), target[rows]).item() for rows in parts), rel=1e-12)
    sums = [term.sums(Signals(segments=some(said, rows)), Signals(segments=some(teacher, rows)), 0.0) for rows in parts]
    torch.testing.assert_close(term.sums(Signals(segments=said), Signals(segments=teacher), 0.0), sum(sums))


def test_empty_pictures_teach_unknown_ones_do_not_and_earlier_layers_learn_the_same() -> None:
    target, said, before = labels((2, 0)), found(2), found(2, seed=4)
    unknown = target.clone()
    unknown[1, :, 0] = torch.nan
    one = total(said, unknown)
    assert total(said, target).item() > one.item() > 0
    (gradient,) = torch.autograd.grad(one, said.logits)
    assert gradient[1].abs().max() == 0
    unknown[0, :, 0] = torch.nan
    total(said, unknown).backward()  # a zero, with a way for gradients
    both = Found(said.logits, said.masks, earlier=(before,))
    assert total(both, target).item() == pytest.approx(total(said, target).item() + total(before, target).item())
    assert loss(both, before).item() == pytest.approx(loss(said, before).item(), abs=1e-9)


@pytest.mark.parametrize(("kind", "options"), [(Segments, {"dice": -1.0}), (Masks, {"mask": float("nan")}),
                                               (Masks, {"temperature": 0.0})])
def test_weights_that_are_none_are_refused(kind: Any, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        kind(**options)


@pytest.mark.parametrize("kind", [Segments, Masks])
def test_what_would_learn_nothing_is_refused(kind: Any) -> None:
    with pytest.raises(RecipeError, match="classes: got 0, and mask and dice are 0 too, so that nothing would be learnt"):
        kind(classes=0.0, mask=0.0, dice=0.0)


def test_batches_without_masks_are_refused_in_words() -> None:
    with pytest.raises(CompatibilityError, match=r"`segments` needs .* no segments"):
        Segments().total(Signals(labels=labels((1,))), 0.0)
    with pytest.raises(CompatibilityError, match=r"`masks` needs .* task: image-segmentation"):
        Masks().sums(Signals(), Signals(), 0.0)
    fewer = Found(torch.rand(1, 4, 2), torch.rand(1, 4, *GRID))
    with pytest.raises(CompatibilityError, match="the student has 1 classes, the teacher 3"):
        loss(fewer, found(1))
