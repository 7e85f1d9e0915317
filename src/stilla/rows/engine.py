"""The walk over the rows: all objectives on a chunk, and the gradients of hidden states and head at once.

Per chunk: the student's product, the teacher's if it has a head, then blocks of few rows on which the objectives are
evaluated, the gradient taking the place of the product; then the chunk's gradients of hidden states and head. Nothing of
(rows, classes) is kept, no product is made twice: 2 N V (3 H_s + H_t) operations, the least that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.objectives.base import RowObjective
from stilla.rows.blocks import compare, compiled
from stilla.rows.memory import hold_freed_memory
from stilla.rows.products import Products, add_product, block_rows, chunk_rows, chunks, products
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
    unit: float = 1.0
    hidden: Float[Tensor, "rows width"] | None = None
    weight: Float[Tensor, "vocab width"] | None = None
    bias: Float[Tensor, " vocab"] | None = None


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
        sums = ctx.walked.losses.sum(-1)
        ctx.walked.losses = sums
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
        ours = stack.enter_context(products(student, size))
        theirs = stack.enter_context(products(work.teacher, size)) if isinstance(work.teacher, Headed) else None
        return _walk(work, student, ours, theirs, wanted)


def _walk(work: Work, student: Headed, ours: Products, theirs: Products | None, wanted: Sequence[bool]) -> Walked:
    rows, classes, kind = len(student), student.head.classes, student.hidden.dtype
    walked = _empty(work, student, ours.exact, wanted)
    block = compiled() if work.compile else compare
    step = block_rows(classes, student.device)
    coefficients = walked.losses.new_tensor([coefficient * walked.unit for _, coefficient in work.terms])
    taught = tuple(any(wanted) and coefficient != 0 for _, coefficient in work.terms)
    objectives = tuple(objective for objective, _ in work.terms)
    for start, end in chunks(rows, classes, kind, student.device):
        product = ours.chunk(start, end)
        told = theirs.chunk(start, end) if theirs is not None else None
        for first in range(start, end, step or end - start):
            last = min(first + (step or end - start), end)
            part = slice(first - start, last - start)
            form = None if work.teacher is None or theirs is not None else work.teacher.rows(first, last)
            walked.losses[:, first:last] = block(
                objectives, coefficients, taught, work.progress, ours, product[part], theirs,
                None if told is None else told[part], form, None if work.labels is None else work.labels[first:last],
                walked.bias)
        hidden = ours.hidden[start:end]
        if walked.hidden is not None:
            torch.mm(product, ours.weight, out=walked.hidden[start:end])
        if walked.weight is not None:
            add_product(walked.weight[:classes], product, hidden, first=start == 0)
    return walked


def _empty(work: Work, student: Headed, exact: torch.dtype, wanted: Sequence[bool]) -> Walked:
    hidden, head = student.hidden, student.head
    walked = Walked(hidden.new_zeros(len(work.terms), len(student), dtype=exact))
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
