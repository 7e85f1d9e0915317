"""The walk over the rows: all objectives on a chunk, and the gradients of hidden states and head at once.

Per chunk: the student's product, the teacher's if it has a head, then blocks of few rows on which the objectives are
evaluated, the gradient taking the place of the product; then the chunk's gradients of hidden states and head. Nothing of
(rows, classes) is kept, no product is made twice: 2 N V (3 H_s + H_t) operations, the least that there is. Each of the
three is cut into pieces that a crew of threads takes (`crew.py`); how they are cut follows from the sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.objectives.base import RowObjective
from stilla.rows.blocks import compare, compiled, many_graphs
from stilla.rows.crew import InOrder, Piece, together
from stilla.rows.memory import hold_freed_memory
from stilla.rows.products import (
    Products,
    add_product,
    block_rows,
    chunk_rows,
    chunks,
    class_parts,
    products,
    row_parts,
)
from stilla.signals import Form, Head, Headed

Weighted = Sequence[tuple[RowObjective, float]]


@dataclass(frozen=True)
class Work:
    """What the student is compared with."""

    terms: Weighted
    teacher: Form | None
    labels: Tensor | None
    progress: float
    compile: bool = False


@dataclass
class Walked:
    """Every term's loss of every row, and the gradients that were wanted, of `unit` times their sum with coefficients."""

    losses: Float[Tensor, "terms rows"]
    sums: Float[Tensor, " terms"]
    unit: float = 1.0
    hidden: Float[Tensor, "rows width"] | None = None
    weight: Float[Tensor, "vocab width"] | None = None
    bias: Float[Tensor, " vocab"] | None = None

    def add_up(self) -> None:
        """The losses, over the rows."""
        torch.sum(self.losses, -1, out=self.sums)


class RowLoss(torch.autograd.Function):
    """(work, head, hidden, weight, bias) -> (loss, sums of the terms). The gradients are made in the forward.

    The first backward hands its gradients out, so that they need not be copied; a second one (`retain_graph`) walks anew.
    """

    @staticmethod
    def forward(
        ctx: Any, work: Work, head: Head, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.work, ctx.head = work, head
        ctx.save_for_backward(hidden, weight, bias)
        ctx.walked = walk(work, Headed(hidden, head), ctx.needs_input_grad[2:])
        sums = ctx.walked.sums
        ctx.walked.losses = sums  # all rows' are no longer needed
        coefficients = sums.new_tensor([coefficient for _, coefficient in work.terms])
        ctx.mark_non_differentiable(sums)
        return coefficients @ sums, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        walked, ctx.walked = ctx.walked, None
        if walked is None:
            walked = walk(ctx.work, Headed(hidden, ctx.head), ctx.needs_input_grad[2:])
        given: tuple[Tensor | None, ...] = (walked.hidden, walked.weight, walked.bias)
        # nobody else has them: in place. Asking for the value is free on a CPU, and saves a walk through the head
        if walked.unit != 1 or above.device.type != "cpu" or above.item() != 1:
            given = tuple(None if one is None else one.mul_(above / walked.unit) for one in given)
        return (None, None, *(None if one is None else one.to(like.dtype)
                              for one, like in zip(given, (hidden, weight, bias), strict=True)))


def walk(work: Work, student: Headed, wanted: Sequence[bool]) -> Walked:
    """`wanted`: whether gradients of hidden states, weight and bias are."""
    hold_freed_memory()
    size = chunk_rows(len(student), student.head.classes, student.hidden.dtype, student.device)
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(student.device.type, enabled=False))  # also in a backward, whatever is on there
        ours = stack.enter_context(products(student, size))
        theirs = stack.enter_context(products(work.teacher, size)) if isinstance(work.teacher, Headed) else None
        if work.compile:
            stack.enter_context(many_graphs())
        return _walk(work, student, ours, theirs, wanted)


def _walk(work: Work, student: Headed, ours: Products, theirs: Products | None, wanted: Sequence[bool]) -> Walked:
    device = student.device
    walked = _empty(work, student, ours.exact, wanted)
    blocks = _Blocks(work, ours, theirs, walked, any(wanted))
    for start, end in chunks(len(student), student.head.classes, student.hidden.dtype, device):
        together([*ours.pieces(start, end), *([] if theirs is None else theirs.pieces(start, end))], device)
        compared = blocks.pieces(start, end)
        # alone: what is compiled for it, the others use
        alone = 1 if work.compile and start == 0 else 0
        together(compared[:alone], device)
        together(compared[alone:], device)
        together(_gradients(ours, walked, start, end), device)
    together([walked.add_up], device)
    return walked


class _Blocks:
    """Blocks of few rows, compared in any order; what is a sum over rows is summed in theirs."""

    def __init__(self, work: Work, ours: Products, theirs: Products | None, walked: Walked, wanted: bool) -> None:
        self.work, self.ours, self.theirs, self.walked = work, ours, theirs, walked
        self.block = compiled(ours.hidden.device.type) if work.compile else compare
        self.objectives = tuple(objective for objective, _ in work.terms)
        self.taught = tuple(wanted and coefficient != 0 for _, coefficient in work.terms)
        self.coefficients = walked.losses.new_tensor([coefficient * walked.unit for _, coefficient in work.terms])
        self.bias = None if walked.bias is None else InOrder(walked.bias[: ours.head.classes])

    def pieces(self, start: int, end: int) -> list[Piece]:
        """What compares the rows of a chunk, whose products are there."""
        step = block_rows(self.ours.head.classes, self.ours.hidden.device) or end - start
        return [partial(self._compare, start, first, min(first + step, end)) for first in range(start, end, step)]

    def _compare(self, start: int, first: int, last: int) -> None:
        work, theirs, part = self.work, self.theirs, slice(first - start, last - start)
        told = None if theirs is None else theirs.room(start, last)[part]
        form = None if work.teacher is None or theirs is not None else work.teacher.rows(first, last)
        labels = None if work.labels is None else work.labels[first:last]
        losses, bias = self.block(self.objectives, self.coefficients, self.taught, work.progress, self.ours,
                                  self.ours.room(start, last)[part], theirs, told, form, labels, self.bias is not None)
        self.walked.losses[:, first:last] = losses
        if self.bias is not None and bias is not None:
            self.bias.add(first, last, bias)


def _gradients(ours: Products, walked: Walked, start: int, end: int) -> list[Piece]:
    """What makes them of a chunk, in which the gradient of the logits is now; the long pieces first."""
    gradient, hidden = ours.room(start, end), ours.hidden[start:end]
    pieces: list[Piece] = []
    if walked.hidden is not None:
        pieces += [partial(torch.mm, gradient[part], ours.weight, out=walked.hidden[start:end][part])
                   for part in row_parts(hidden)]
    if walked.weight is not None:
        pieces += [partial(add_product, walked.weight[part], gradient[:, part], hidden, first=start == 0)
                   for part in class_parts(ours.weight)]
    return pieces


def _empty(work: Work, student: Headed, exact: torch.dtype, wanted: Sequence[bool]) -> Walked:
    hidden, head = student.hidden, student.head
    terms = len(work.terms)
    walked = Walked(hidden.new_zeros(terms, len(student), dtype=exact), hidden.new_zeros(terms, dtype=exact))
    if hidden.dtype == torch.float16:
        # a mean's gradient is below what float16 can hold: it is multiplied in when the gradients are handed out
        largest = max((abs(coefficient) for _, coefficient in work.terms), default=0.0)
        walked.unit = 1 / largest if largest else 1.0
    if wanted[0]:
        walked.hidden = torch.empty_like(hidden)
    if wanted[1]:
        walked.weight = head.weight.new_empty(head.weight.shape, dtype=exact)
        walked.weight[head.classes if len(student) else 0 :] = 0
    if head.bias is not None and wanted[2]:
        walked.bias = head.bias.new_zeros(head.bias.shape, dtype=exact)
    return walked
