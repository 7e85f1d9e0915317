"""Distributions of edges: by an oracle, wherever the bins of both models lie, and in the cases where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers.loss.loss_d_fine import weighting_function
from transformers.models.d_fine.modeling_d_fine import distance2bbox

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Edges, Queries
from stilla.objectives._bins import carried, seen_from
from stilla.objectives._matching import corners, pairs
from stilla.signals import Detections, Dims, Signals
from stilla.signals import Edges as Distributions
from tests.objectives.test_objects import CLASSES
from tests.objectives.test_queries import _giou

Bins = tuple[float, ...]


def bins_of(number: int = 8, up: float = 0.5, scale: float = 4.0) -> Bins:
    """As D-FINE has them."""
    places = weighting_function(number, torch.tensor([up], dtype=torch.float64), torch.tensor([scale], dtype=torch.float64))
    return tuple((places / scale).tolist())


SAME = (bins_of(), bins_of())
OTHERS = {"same": SAME, "curved otherwise": (bins_of(), bins_of(scale=8.0)), "more": (bins_of(), bins_of(16)),
          "fewer": (bins_of(16, scale=2.0), bins_of(8)), "farther": (bins_of(up=0.25), bins_of(up=1.0))}


def found(batch: int, queries: int = 6, seed: int = 0, bins: Bins = SAME[0], *, exclusive: bool = False) -> Detections:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, queries, CLASSES + exclusive, generator=draw, dtype=torch.float64)
    edges = 2 * torch.randn(batch, queries, 4, len(bins), generator=draw, dtype=torch.float64)
    reference = 0.2 + 0.4 * torch.rand(batch, queries, 4, generator=draw, dtype=torch.float64)
    out = reference.new_tensor([-1, -1, 1, 1])
    far = edges.softmax(-1) @ edges.new_tensor(bins) * reference[..., 2:].repeat(1, 1, 2)
    left, top, right, bottom = (corners(reference) + out * far).unbind(-1)
    boxes = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)
    return Detections(logits.requires_grad_(), boxes, exclusive, edges=Distributions(edges.requires_grad_(), reference))


def term_of(bins: tuple[Bins, Bins] = SAME, temperature: float = 5.0) -> Edges:
    made = Edges(temperature=temperature)
    student, teacher = (Dims(0, bins=one) for one in bins)
    assert made.problems(student, teacher, {}) == []
    made.setup(student, teacher, {})
    return made


def loss(student: Detections, teacher: Detections, term: Edges) -> Tensor:
    return term.loss(term.sums(Signals(detections=student), Signals(detections=teacher), 0.0), 0.0)


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(x - x.max())
    return shares / shares.sum()


def _carried(p: NDArray[np.float64], places: NDArray[np.float64], bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """One mass after the other."""
    given = np.zeros(len(bins))
    for mass, place in zip(p, places):
        if place <= bins[0] or place >= bins[-1]:
            given[0 if place <= bins[0] else -1] += mass
            continue
        low = max(one for one in range(len(bins)) if bins[one] <= place)
        share = (place - bins[low]) / (bins[low + 1] - bins[low])
        given[low] += mass * (1 - share)
        given[low + 1] += mass * share
    return given


def oracle(student: Detections, teacher: Detections, bins: tuple[Bins, Bins], temperature: float) -> float:
    ours, theirs = (np.array(one) for one in bins)
    total, sure_of_all = 0.0, 0.0
    assert student.edges is not None
    assert teacher.edges is not None
    for picture in range(len(student.logits)):
        s, t = (one.independent()[picture].detach().numpy() for one in (student, teacher))
        a, b = (one.boxes[picture].detach().numpy() for one in (student, teacher))
        p, q = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(-s))
        sure = p.max(-1)
        sure_of_all += sure.sum()
        taken = np.argsort(-sure, kind="stable")[: len(s)]
        cost = np.array([[sure[k] * (np.abs(q[i] - p[k]).sum() + 5 * np.abs(a[i] - b[k]).sum() + 2 * (1 - _giou(a[i], b[k])))
                          for k in taken] for i in range(len(s))])
        for i, column in zip(*linear_sum_assignment(cost)):
            k = taken[column]
            mine, yours = (one.edges.reference[picture, row].numpy() for one, row in ((student, i), (teacher, k)))  # type: ignore[union-attr]
            for edge in range(4):
                axis, out = edge % 2, -1 if edge < 2 else 1
                at = [one[axis] + out * one[2 + axis] / 2 for one in (mine, yours)]
                # where the teacher's bins lie in the picture, and then around the student's box
                places = (at[1] + out * theirs * yours[2 + axis] - at[0]) * out / mine[2 + axis]
                goal = _carried(_softmax(teacher.edges.logits[picture, k, edge].detach().numpy()), places, ours)
                goal = goal ** (1 / temperature)
                goal = goal / goal.sum()
                said = _softmax(student.edges.logits[picture, i, edge].detach().numpy() / temperature)
                there = goal > 0
                apart = (goal[there] * np.log(goal[there] / said[there])).sum()
                total += sure[k] * temperature**2 * apart / 4
    return total / (sure_of_all + len(student.logits))


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("bins", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("queries", [(6, 6), (4, 7), (7, 4)])
def test_it_is_the_equation_of_its_page(bins: tuple[Bins, Bins], queries: tuple[int, int], temperature: float) -> None:
    student = found(3, queries[0], seed=1, bins=bins[0])
    teacher = found(3, queries[1], seed=2, bins=bins[1], exclusive=True)
    value = loss(student, teacher, term_of(bins, temperature))
    assert value.item() == pytest.approx(oracle(student, teacher, bins, temperature), rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_student_that_is_its_teacher_has_no_loss_in_whatever_order(temperature: float) -> None:
    student = found(3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    edges = student.edges
    assert edges is not None
    teacher = Detections(student.logits[:, order].detach(), student.boxes[:, order].detach(),
                         edges=Distributions(edges.logits[:, order].detach(), edges.reference[:, order]))
    value = loss(student, teacher, term_of(temperature=temperature))
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    assert edges.logits.grad is not None
    assert edges.logits.grad.abs().max() < 1e-9


def test_same_boxes_and_bins_are_plain_distillation_of_localisation() -> None:
    """Bit for bit the same targets, whatever the precision: KL at every bin (Zheng et al. 2022)."""
    torch.manual_seed(0)
    for exact in (torch.float32, torch.float64):
        bins = torch.tensor(bins_of(32), dtype=exact)
        box = torch.rand(50, 4, dtype=exact)
        places = seen_from(bins, box, box)
        torch.testing.assert_close(places, bins.expand_as(places), rtol=0, atol=0)
        p = torch.randn(50, 4, 33, dtype=exact).softmax(-1)
        torch.testing.assert_close(carried(p, places, bins), p, rtol=0, atol=0)
    p, q = torch.randn(2, 50, 4, 33, dtype=torch.float64)
    plain = 25 * F.kl_div((q / 5).log_softmax(-1), (p / 5).softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(Edges()._apart(p.softmax(-1), q), plain)


def test_an_edge_stays_where_it_is_in_the_picture_whatever_box_it_is_seen_from() -> None:
    """A student that learns all of it says the teacher's box, decoded as transformers decodes it."""
    torch.manual_seed(1)
    theirs, ours = bins_of(16, scale=8.0), bins_of(32, up=1.5)
    logits = torch.randn(40, 4, 17, dtype=torch.float64)
    boxes = [0.3 + 0.2 * torch.rand(40, 4, dtype=torch.float64) for _ in range(2)]
    (bins_t, bins_s), scales = (torch.tensor(one, dtype=torch.float64) for one in (theirs, ours)), (8.0, 4.0)
    places = seen_from(bins_t, boxes[0], boxes[1])
    p = carried(logits.softmax(-1), places, bins_s)
    inside = (places.amin((1, 2)) > bins_s[0]) & (places.amax((1, 2)) < bins_s[-1])
    assert 10 < inside.sum() <= 40
    torch.testing.assert_close(p.sum(-1), torch.ones(40, 4, dtype=torch.float64))
    teacher = distance2bbox(boxes[0], logits.softmax(-1) @ bins_t * scales[0], scales[0])
    student = distance2bbox(boxes[1], p @ bins_s * scales[1], scales[1])
    torch.testing.assert_close(student[inside], teacher[inside])


def test_what_lies_beyond_the_students_reach_is_put_on_its_last_bin() -> None:
    bins = torch.tensor([-1.0, 0.0, 1.0])
    places = torch.tensor([-7.0, -1.0, 0.25, 1.0, 9.0])
    p = carried(torch.tensor([0.1, 0.2, 0.4, 0.1, 0.2]), places, bins)
    torch.testing.assert_close(p, torch.tensor([0.3, 0.3, 0.4]))


@pytest.mark.slow
def test_its_gradient_is_that_of_its_value_and_ends_at_the_students_distributions() -> None:
    bins = OTHERS["fewer"]
    student, teacher, term = found(2, 3, seed=4, bins=bins[0]), found(2, 4, seed=5, bins=bins[1]), term_of(bins)
    assert student.edges is not None
    assert teacher.edges is not None
    place = student.edges.reference

    def value(logits: Tensor) -> Tensor:
        return loss(replace(student, edges=Distributions(logits, place)), teacher, term)

    assert torch.autograd.gradcheck(value, (student.edges.logits,))
    value(student.edges.logits).backward()
    assert student.edges.logits.grad is not None
    assert student.edges.logits.grad.abs().max() > 1e-4
    assert student.logits.grad is teacher.edges.logits.grad is teacher.logits.grad is None


def test_half_precision_and_masses_that_vanish_stay_finite() -> None:
    student, teacher = found(2, seed=1), found(2, seed=2)
    edges = teacher.edges
    assert edges is not None
    far = Distributions(1e3 * edges.logits.detach(), edges.reference.clone())
    far.reference[:, :, 2:] = 0  # a box of no size
    half = Detections(student.logits.detach().bfloat16(), student.boxes.detach().bfloat16(), edges=Distributions(
        student.edges.logits.detach().bfloat16().requires_grad_(), student.edges.reference.bfloat16()))  # type: ignore[union-attr]
    value = loss(half, replace(teacher, edges=far), term_of())
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(half.edges.logits.grad).all()  # type: ignore[union-attr]


def test_sums_of_parts_are_those_of_the_step() -> None:
    student, teacher, term = found(4, seed=1), found(4, seed=3), term_of()

    def some(said: Detections, rows: slice) -> Signals:
        assert said.edges is not None
        return Signals(detections=Detections(said.logits[rows], said.boxes[rows], edges=Distributions(
            said.edges.logits[rows], said.edges.reference[rows])))

    every = term.sums(some(student, slice(0, 4)), some(teacher, slice(0, 4)), 0.0)
    parts = [term.sums(some(student, rows), some(teacher, rows), 0.0) for rows in (slice(0, 1), slice(1, 4), slice(4, 4))]
    torch.testing.assert_close(every, sum(parts))


def test_every_layer_with_edges_is_held_against_the_teachers_last_and_others_are_left_out() -> None:
    student, before, teacher = (found(2, seed=seed) for seed in (1, 2, 3))
    bare = replace(found(2, seed=8), edges=None)
    whole = replace(student, earlier=(bare, before))
    each = [loss(one, teacher, term_of()).item() for one in (student, before)]
    assert loss(whole, teacher, term_of()).item() == pytest.approx(sum(each))


def test_pairs_are_those_of_queries() -> None:
    """Where nothing else differs, `queries` finds nothing to learn and `edges` does."""
    student = found(2)
    other = found(2, seed=7).edges
    teacher = Detections(student.logits.detach(), student.boxes.detach(), edges=other)
    queries = Queries()
    sums = queries.sums(Signals(detections=student), Signals(detections=teacher), 0.0)
    assert queries.loss(sums, 0.0).item() == pytest.approx(0, abs=1e-12)
    assert loss(student, teacher, term_of()).item() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [False, True])
def test_guesses_are_paired_once_for_both_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """To the bit, values and gradients, each layer's pairs its own; another teacher of the same step has its own too."""
    counted = []

    def counting(cost: Tensor) -> tuple[Tensor, Tensor]:
        counted.append(1)
        return pairs(cost)

    monkeypatch.setattr("stilla.objectives._sets.pairs", counting)

    def after(shared: bool) -> list[Tensor]:
        first, last = (found(3, seed=seed, exclusive=exclusive) for seed in (1, 2))
        whole = replace(last, earlier=(replace(first, edges=None), first))
        ends = []
        for told in (found(3, queries=8, seed=9), found(3, queries=8, seed=10)):
            for term in (Queries(), term_of()):
                ours, theirs = (whole, told) if shared else (_anew(whole), _anew(told))
                value = term.loss(term.sums(Signals(detections=ours), Signals(detections=theirs), 0.0), 0.0)
                value.backward()
                ends.append(value.detach())
        return [*ends, *(one.grad for each in (first, last) for one in (each.logits, each.boxes, each.edges.logits)  # type: ignore[union-attr]
                         if one.grad is not None)]

    together, both = after(shared=True), len(counted)
    apart = after(shared=False)
    assert both == 2 * 3 * 3  # teachers, layers, pictures
    assert len(counted) - both == 2 * (3 + 2) * 3  # two of the layers have edges
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def _anew(said: Detections) -> Detections:
    return replace(said, earlier=tuple(replace(one) for one in said.earlier))


def test_models_without_distributions_are_refused_by_name() -> None:
    with_, without = Dims(0, bins=bins_of()), Dims(0)
    (problem,) = Edges().problems(without, with_, {})
    assert "the student has none: D-FINE and DEIMv2 (task: object-detection) do" in problem
    assert "Use `queries`" in problem
    assert "the teacher has none" in Edges().problems(with_, without, {})[0]
    assert "the student and the teacher have none" in Edges().problems(without, without, {})[0]
    with pytest.raises(CompatibilityError, match="what the teacher said of this batch has none; of a cache"):
        loss(found(1), replace(found(1), edges=None), term_of())
    with pytest.raises(CompatibilityError, match="what the student said of this batch has none"):
        term_of().sums(Signals(), Signals(), 0.0)
    with pytest.raises(RecipeError, match="temperature"):
        Edges(temperature=0.0)
