"""The walk over chunks against the textbook: values, gradients, and everything that must change nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Labels, Logits
from stilla.objectives.base import Gradient, RowObjective, Softened
from stilla.rows import fused_divergence, row_loss
from stilla.rows.products import chunk_rows
from stilla.signals import Dense, Head, Headed
from tests.rows.setting import (
    CLASSES,
    DIVERGENCES,
    HEADS,
    ROWS,
    defined,
    draw,
    in_pieces,
    sides,
    some_terms,
    textbook,
    top_k,
)

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [(4, 2), (1, 1), (100, 100)], ids=["pieces", "single rows", "whole"])
@pytest.mark.parametrize("head", HEADS)
def test_value_and_gradients_equal_the_textbook(head: str, pieces: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, *pieces)
    given, terms = sides(**HEADS[head]), some_terms()
    expected = textbook(terms, given.student, given.teacher, given.labels)
    loss, sums = row_loss(terms, given.student, given.teacher, given.labels, 0.0)
    assert abs(loss - expected) <= 1e-12 * abs(expected)
    for (objective, _), total in zip(terms, sums, strict=True):
        alone = textbook([(objective, 1.0)], given.student, given.teacher, given.labels)
        assert abs(total - alone) <= 1e-12 * abs(alone)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, given.leaves), strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


@pytest.mark.parametrize("teacher", ["all", "top-k", "samples", "dense"])
@pytest.mark.parametrize("divergence", [*DIVERGENCES, "mse"])
def test_every_divergence_and_form_equals_the_textbook(
    divergence: Any, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces(monkeypatch, 6, 4)
    given = sides()
    temperature = {"top-k": 3.0, "samples": 1.0}.get(teacher, 2.0)
    objective = Logits(divergence=divergence, temperature=None if divergence == "mse" else temperature)
    form = {"all": given.teacher, "dense": given.teacher.dense(), "top-k": top_k(given.teacher, 9, temperature),
            "samples": draw(given.teacher, 20)}[teacher]
    if not isinstance(form, Headed | Dense) and type(form) not in objective.accepts:
        with pytest.raises(CompatibilityError, match=r"`logits` with .* cannot be computed from"):
            row_loss([(objective, 1.0)], given.student, form, None, 0.0)
        return
    expected = textbook([(objective, 0.5)], given.student, form, None)
    loss, _ = row_loss([(objective, 0.5)], given.student, form, None, 0.0)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, given.leaves), strict=True):
        assert (one - other).norm() <= 1e-11 * other.norm()


@pytest.mark.parametrize("skew", [0.1, 0.6])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_every_divergence_is_what_its_definition_says(
    divergence: Any, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces(monkeypatch, 6, 4)
    given = sides(**HEADS["all"])
    options = {"skew": skew} if divergence.startswith("skew") else {}
    terms: list[tuple[RowObjective, float]] = [(Logits(divergence=divergence, temperature=2.0, **options), 0.5)]
    loss, _ = row_loss(terms, given.student, given.teacher, None, 0.0)
    logits = (given.student.dense().logits, given.teacher.dense().logits)
    expected = 0.5 * defined(divergence, *logits, 2.0, skew).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(expected, given.leaves), strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["plain", "all"])
def test_gradients_pass_gradcheck_also_when_asked_for_twice(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 2, 1)
    given = sides(rows=5, **HEADS[head])
    terms = some_terms()[:2]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        hidden, weight, *bias = leaves
        old = given.student.head
        made = Head(weight, bias[0] if bias else None, old.scale, old.softcap, old.used)
        # what comes from above is not 1
        return 3 * row_loss(terms, Headed(hidden, made), given.teacher, given.labels, 0.0)[0]

    assert torch.autograd.gradcheck(loss, given.leaves)


def test_gradients_are_multiplied_by_what_comes_from_above() -> None:
    given = sides()
    once, often = (torch.autograd.grad(factor * row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)[0],
                                       given.leaves) for factor in (1.0, 256.0))
    for one, other in zip(once, often, strict=True):
        torch.testing.assert_close(256 * one, other, rtol=1e-13, atol=0)


def test_a_second_backward_gives_the_same() -> None:
    given = sides()
    loss, _ = row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)
    first = torch.autograd.grad(loss, given.leaves, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, given.leaves), strict=True):
        assert torch.equal(one, other)


def test_the_order_of_rows_and_of_classes_is_irrelevant(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 5, 2)
    given = sides()
    rows, classes = torch.randperm(ROWS), torch.randperm(CLASSES)
    place = torch.empty_like(classes).scatter_(0, classes, torch.arange(CLASSES))
    labels = torch.where(given.labels >= 0, place[given.labels.clamp_min(0)], -100)
    student = Headed(given.student.hidden[rows], Head(given.student.head.weight[classes]))
    teacher = Headed(given.teacher.hidden[rows], Head(given.teacher.head.weight[classes]))
    one, _ = row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)
    other, _ = row_loss(some_terms(), student, teacher, labels[rows], 0.0)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    for before, after in zip(torch.autograd.grad(one, given.leaves), torch.autograd.grad(other, given.leaves), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-10, atol=1e-12)


def test_outputs_that_no_token_uses_have_no_influence_and_no_gradient() -> None:
    given = sides()
    head = given.student.head
    padded = torch.cat([head.weight.detach(), 50 * torch.randn(11, head.weight.shape[1], dtype=torch.float64)])
    student = Headed(given.student.hidden, Head(padded.requires_grad_()).first(CLASSES))
    one, _ = row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)
    other, _ = row_loss(some_terms(), student, given.teacher, given.labels, 0.0)
    assert torch.equal(one, other)
    (expected,), (found,) = torch.autograd.grad(one, head.weight), torch.autograd.grad(other, padded)
    assert torch.equal(found[:CLASSES], expected)
    assert not found[CLASSES:].any()


def test_any_partition_of_the_rows_gives_the_same_gradient() -> None:
    given = sides()

    def gradients(borders: list[int]) -> tuple[torch.Tensor, ...]:
        parts = [row_loss(some_terms(), given.student.rows(a, b), given.teacher.rows(a, b), given.labels[a:b], 0.0)[0]
                 for a, b in pairwise(borders)]
        return torch.autograd.grad(torch.stack(parts).sum(), given.leaves)

    whole = gradients([0, ROWS])
    for borders in ([0, 1, ROWS], [0, 7, 7, 14, ROWS], [0, 0, ROWS]):
        for one, other in zip(gradients(borders), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_no_rows_give_a_zero_with_a_gradient_path() -> None:
    given = sides(rows=0, bias=True)
    loss, sums = row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)
    loss.backward()
    assert loss.item() == 0
    assert not sums.any()
    for leaf in given.leaves:
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()


def test_a_term_without_weight_is_measured_and_teaches_nothing() -> None:
    given = sides()
    loss, sums = row_loss([(Logits(), 0.0), (Labels(), 1.0)], given.student, given.teacher, given.labels, 0.0)
    only, _ = row_loss([(Labels(), 1.0)], given.student, None, given.labels, 0.0)
    assert sums[0] > 0
    for one, other in zip(torch.autograd.grad(loss, given.leaves), torch.autograd.grad(only, given.leaves), strict=True):
        assert torch.equal(one, other)


def test_rows_without_a_label_get_no_gradient_of_it() -> None:
    given = sides()
    loss, _ = row_loss([(Labels(), 1.0)], given.student, None, given.labels, 0.0)
    (hidden,) = torch.autograd.grad(loss, given.student.hidden)
    assert not hidden[given.labels < 0].any()
    assert hidden[given.labels >= 0].abs().sum(-1).min() > 0


def test_gradients_over_the_classes_sum_to_zero() -> None:
    given = sides(bias=True)
    loss, _ = row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)
    (bias,) = torch.autograd.grad(loss, given.student.head.bias)
    assert abs(bias.sum()) < 1e-12


def test_tied_embeddings_get_the_sum_of_both_gradients() -> None:
    given = sides()
    ids = torch.randint(0, CLASSES, (ROWS,))

    def gradient(engine: bool) -> torch.Tensor:
        weight = given.student.head.weight
        student = Headed(torch.tanh(weight[ids]), Head(weight))
        loss = (row_loss(some_terms(), student, given.teacher, given.labels, 0.0)[0] if engine
                else textbook(some_terms(), student, given.teacher, given.labels))
        return torch.autograd.grad(loss, weight)[0]

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-11, atol=1e-13)


def _products(monkeypatch: pytest.MonkeyPatch, call: Any) -> list[tuple[str, int]]:
    """Which products a call makes: the operation and the width of its first operand."""
    from torch.utils._python_dispatch import TorchDispatchMode

    made: list[tuple[str, int]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.__name__.partition(".")[0]
            if name in ("mm", "addmm"):
                made.append((name, args[0].shape[-1]))
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr("stilla.rows.products.TILE", 10**6)
    with Watch():
        call()
    return made


def test_only_the_least_products_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    given, frozen = sides(dtype=torch.float32), sides(dtype=torch.float32)
    frozen.student.head.weight.requires_grad_(False)
    sparse = top_k(given.teacher, 5)
    terms = [(Logits(temperature=1.0), 1.0), (Labels(), 1.0)]

    def number(one: Any, teacher: Any) -> int:
        return len(_products(monkeypatch, lambda: row_loss(terms, one.student, teacher, one.labels, 0.0)[0].backward()))

    assert number(given, given.teacher) == 4
    assert number(given, sparse) == 3  # a sparse teacher costs no product
    assert number(frozen, given.teacher) == 3  # a frozen head costs none for its gradient
    terms.pop(0)
    assert number(given, given.teacher) == 3  # and a teacher that nobody asks none at all
    terms.insert(0, (Logits(temperature=1.0), 1.0))
    with torch.no_grad():
        assert len(_products(monkeypatch, lambda: row_loss(terms, given.student, given.teacher, given.labels, 0.0))) == 2


def test_nothing_as_large_as_all_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    in_pieces(monkeypatch, 4, 2)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.dim() == 2 and found.shape[1] > CLASSES // 2:
                largest = max(largest, found.shape[0])
            return found

    given = sides(rows=60)
    with Watch():
        row_loss(some_terms(), given.student, given.teacher, given.labels, 0.0)[0].backward()
    assert 0 < largest <= 4


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_lower_precision_stays_near_the_textbook(dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 8, 4)
    given = sides(rows=200, dtype=dtype)
    exact = sides(rows=200)
    for side in ("student", "teacher"):  # the same rounded numbers, computed with exactly
        getattr(exact, side).hidden.data.copy_(getattr(given, side).hidden.detach())
        getattr(exact, side).head.weight.data.copy_(getattr(given, side).head.weight.detach())
    terms = [(Logits(temperature=2.0), 1 / 200), (Labels(), 1 / 200)]
    loss, sums = row_loss(terms, given.student, given.teacher, given.labels, 0.0)
    expected = textbook(terms, exact.student, exact.teacher, exact.labels)
    assert loss.dtype == sums.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=bound)
    found = torch.autograd.grad(loss, given.leaves)
    for one, other in zip(found, torch.autograd.grad(expected, exact.leaves), strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= bound * other.norm()


def test_float16_gradients_do_not_vanish_where_a_loss_is_scaled() -> None:
    given, exact = sides(rows=64, dtype=torch.float16), sides(rows=64)
    tiny = 1e-7  # a mean over ten million rows
    scaled = 65536 * row_loss([(Labels(), tiny)], given.student, None, given.labels, 0.0)[0]
    expected = 65536 * textbook([(Labels(), tiny)], exact.student, None, exact.labels)
    found = torch.autograd.grad(scaled, given.leaves)
    for one, other in zip(found, torch.autograd.grad(expected, exact.leaves), strict=True):
        assert (one.double() - other).norm() <= 1e-2 * other.norm()


@pytest.mark.slow
def test_the_heads_gradient_is_added_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 1, 1)
    rows = 3000  # added up one by one in bfloat16, most of them would be lost
    hidden = torch.full((rows, 4), 0.25, dtype=torch.bfloat16)
    weight = torch.zeros(8, 4, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = row_loss([(Labels(), 1.0)], Headed(hidden, Head(weight)), None, torch.zeros(rows, dtype=torch.int64), 0.0)
    (found,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(found[0].float(), torch.full((4,), -rows * 0.25 * 7 / 8), rtol=5e-3, atol=0)


def test_products_are_made_in_the_precision_of_the_hidden_states() -> None:
    given = sides(dtype=torch.float32)
    student = Headed(given.student.hidden.to(torch.bfloat16), given.student.head)
    loss, _ = row_loss(some_terms(), student, given.teacher, given.labels, 0.0)
    weight, hidden = torch.autograd.grad(loss, [given.student.head.weight, given.student.hidden])
    assert weight.dtype == hidden.dtype == torch.float32


def test_classes_that_a_dense_teacher_excludes_teach_nothing() -> None:
    given = sides(dtype=torch.float32)
    target = given.teacher.dense().logits
    target[:, 3] = -torch.inf
    loss, _ = row_loss([(Logits(temperature=1.0), 1.0)], given.student, Dense(target), None, 0.0)
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, given.leaves):
        assert torch.isfinite(gradient).all()


def test_the_analytic_gradients_are_those_of_autograd() -> None:
    given = sides(rows=9)
    logits, dense = given.student.dense().logits.detach(), given.teacher.dense()
    cases: list[tuple[RowObjective, Any]] = [
        (Labels(), None), (Labels(label_smoothing=0.1), None), (Logits(divergence="mse"), dense)]
    cases += [(Logits(divergence=one, temperature=2.0), dense) for one in DIVERGENCES]
    cases += [(Logits(divergence=one, temperature=2.0), top_k(given.teacher, k, 2.0)) for one in DIVERGENCES
              for k in (1, 6, CLASSES)]
    cases += [(Logits(temperature=1.0), draw(given.teacher, 30))]
    for objective, teacher in cases:
        losses, gradients = objective.losses_and_gradients(Softened(logits), teacher, given.labels, 0.0)
        expected, by_autograd = RowObjective.losses_and_gradients(objective, Softened(logits), teacher, given.labels, 0.0)
        torch.testing.assert_close(losses, expected, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(gradients.dense(), by_autograd.dense(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_logits_themselves_may_be_a_part_of_a_gradient(order: tuple[int, ...]) -> None:
    class Small(RowObjective):
        needs_teacher = False

        def losses(self, logits: Any, teacher: Any, labels: Any, progress: float) -> Any:
            return logits.square().mean(-1)

    class ByHand(Small):
        def losses_and_gradients(self, student: Any, teacher: Any, labels: Any, progress: float) -> Any:
            return student.logits.square().mean(-1), Gradient(((student.logits, 2 / student.logits.shape[-1]),))

    given = sides(dtype=torch.float32)  # a bare head: the products are the logits
    found = []
    for penalty in (Small(), ByHand()):
        terms: list[Any] = [(Labels(), 0.3), (penalty, 0.5), (Logits(temperature=2.0), 0.2)]
        loss, _ = row_loss([terms[place] for place in order], given.student, given.teacher, given.labels, 0.0)
        found.append(torch.autograd.grad(loss, given.leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_fused_divergence_is_the_mean_over_the_rows() -> None:
    given = sides()
    loss = fused_divergence(given.student.hidden, given.student.head, given.teacher.hidden, given.teacher.head,
                            "reverse_kl", temperature=2.0)
    expected = textbook([(Logits(divergence="reverse_kl", temperature=2.0), 1 / ROWS)], given.student, given.teacher, None)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    mse = fused_divergence(given.student.hidden, given.student.head, given.teacher.hidden, given.teacher.head, "mse")
    gap = given.student.dense().logits - given.teacher.dense().logits
    torch.testing.assert_close(mse, gap.square().mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_fused_divergence_takes_plain_weights_and_layers(bias: bool) -> None:
    given = sides(bias=bias)
    student, teacher = given.student, given.teacher
    layers = []
    for side in (student, teacher):
        layer = torch.nn.Linear(side.hidden.shape[1], CLASSES, bias=bias, dtype=torch.float64)
        layer.weight.data.copy_(side.head.weight.detach())
        if side.head.bias is not None:
            layer.bias.data.copy_(side.head.bias.detach())
        layers.append(layer)
    expected = fused_divergence(student.hidden, student.head, teacher.hidden, teacher.head, "jsd", 2.0)
    wanted = torch.autograd.grad(expected, given.leaves)
    loss = fused_divergence(student.hidden, layers[0], teacher.hidden, layers[1], "jsd", 2.0)
    assert torch.equal(loss, expected)
    for one, other in zip(torch.autograd.grad(loss, [student.hidden, *layers[0].parameters()]), wanted, strict=True):
        assert torch.equal(one, other)
    assert not any(parameter.grad is not None for parameter in layers[1].parameters())
    if not bias:
        weight = student.head.weight.detach().clone().requires_grad_()
        fused_divergence(student.hidden.detach(), weight, teacher.hidden, teacher.head.weight, "jsd", 2.0).backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, wanted[1])


def test_what_fused_divergence_cannot_use_is_refused_in_words() -> None:
    given = sides()
    hidden, weight = given.student.hidden, given.student.head.weight
    told, theirs = given.teacher.hidden, given.teacher.head.weight

    class Other(torch.nn.Linear):
        def forward(self, given: Any) -> Any:
            return super().forward(given) * 2

    cases: list[tuple[tuple[Any, ...], str]] = [
        ((hidden[None], weight, told, theirs), r"student_hidden: got shape \(1, 23, 8\); expected \(rows, width\)"),
        ((hidden, weight, told, theirs[:, :5]), r"teacher_head: .* shape \(37, 5\) .* width 12; expected \(vocab, 12\)"),
        ((hidden, weight.T, told, theirs), r"expected \(vocab, 8\): give weight.T"),
        ((hidden, weight[0], told, theirs), r"student_head: got weights of shape \(8,\)"),
        ((hidden, weight, told, theirs.to(torch.int8)), r"teacher: got torch.float64 hidden states and torch.int8 weights"),
        ((hidden, Other(8, CLASSES), told, theirs), r"student_head: Other has a forward of its own"),
        ((hidden, weight, told, torch.nn.Embedding(CLASSES, 12)), r"teacher_head: got Embedding; expected a weight matrix"),
        ((hidden, weight, told.to("meta"), theirs), r"teacher: the hidden states are on meta, the head on cpu"),
        ((hidden, weight, told.to("meta"), theirs.to("meta")), r"the student is on cpu, the teacher on meta"),
        ((hidden, weight, told[:5], theirs), "23 rows, the teacher 5"),
        ((hidden, weight, told, theirs[:30]), "37 classes, the teacher 30"),
    ]
    for arguments, words in cases:
        with pytest.raises(CompatibilityError, match=words):
            fused_divergence(*arguments)


def test_sides_that_do_not_agree_are_refused() -> None:
    given = sides()
    terms = [(Logits(temperature=1.0), 1.0)]
    with pytest.raises(CompatibilityError, match="23 rows, the teacher 5"):
        row_loss(terms, given.student, given.teacher.rows(0, 5), None, 0.0)
    with pytest.raises(CompatibilityError, match="37 classes, the teacher 30"):
        row_loss(terms, given.student, given.teacher.first(30), None, 0.0)
    with pytest.raises(CompatibilityError, match="go up to 36, the student has 30"):
        row_loss(terms, given.student.first(30), top_k(given.teacher, CLASSES), None, 0.0)
    with pytest.raises(CompatibilityError, match="a part of its distribution"):
        row_loss(terms, top_k(given.teacher, 3), given.teacher, None, 0.0)
    with pytest.raises(CompatibilityError, match="needs a teacher's logits"):
        row_loss(terms, given.student, None, None, 0.0)
    with pytest.raises(CompatibilityError, match="first 50 cannot"):
        given.student.first(50)


def test_an_objective_with_weights_of_its_own_is_refused() -> None:
    class Scaled(Labels):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

    given = sides()
    with pytest.raises(CompatibilityError, match="weights of its own"):
        row_loss([(Scaled(), 1.0)], given.student, None, given.labels, 0.0)


def test_chunks_are_even_and_as_large_as_memory_allows() -> None:
    assert chunk_rows(2048, 32000, torch.float32, CPU) == 683
    assert chunk_rows(2048, 32000, torch.bfloat16, CPU) == 1024
    assert chunk_rows(1024, 151936, torch.float32, CPU) == 342
    assert chunk_rows(100, 100, torch.float32, CPU) == 100
    assert chunk_rows(0, 100, torch.float32, CPU) == 1
