"""What evaluation needs of every row of a vocabulary: a few numbers each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.logits import forward_kl
from stilla.rows.crew import Piece, together
from stilla.rows.memory import hold_freed_memory
from stilla.rows.products import block_rows, chunk_rows, chunks, products
from stilla.signals import Dense, Form, Headed


@dataclass(frozen=True)
class RowMeasures:
    """In at least float32, without a graph.

    nll: negative log-likelihood of the label in nats, 0 where there is none. top1: the likeliest class. confidence: its
    log-probability. kl: KL(teacher || student) in nats at temperature 1, where there is a teacher. entropy: of the
    distribution, in nats, where it was asked for.
    """

    nll: Float[Tensor, " rows"]
    top1: Int[Tensor, " rows"]
    confidence: Float[Tensor, " rows"]
    kl: Float[Tensor, " rows"] | None
    entropy: Float[Tensor, " rows"] | None = None


@torch.no_grad()
def row_measures(
    student: Form, labels: Tensor | None, teacher: Form | None = None, *, entropy: bool = False
) -> RowMeasures:
    """Of every row, never with more than a chunk of logits at a time.

    labels: (rows,) int64, -100 where there is none.

    Raises:
        CompatibilityError: rows do not agree, or a side gave a part of its distribution only.
    """
    if teacher is not None and len(teacher) != len(student):
        raise CompatibilityError(f"the student has {len(student)} rows, the teacher {len(teacher)}")
    hold_freed_memory()
    rows, classes = len(student), _classes(student)
    if teacher is not None and _classes(teacher) != classes:
        raise CompatibilityError(f"the student has {classes} classes, the teacher {_classes(teacher)}")
    precision = student.hidden.dtype if isinstance(student, Headed) else torch.float32
    size = chunk_rows(rows, classes, precision, student.device)
    step = block_rows(classes, student.device) or size
    found: dict[int, tuple[Tensor, ...]] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(student.device.type, enabled=False))
        sides = [_Side(form, size, stack) for form in (student, teacher) if form is not None]

        def measure(first: int, last: int) -> None:
            known = None if labels is None else labels[first:last]
            found[first] = _measured(known, *(side.logits(first, last) for side in sides), entropy=entropy)

        for start, end in chunks(rows, classes, precision, student.device):
            together([piece for side in sides for piece in side.pieces(start, end)], student.device)
            together([partial(measure, first, min(first + step, end)) for first in range(start, end, step)], student.device)
    if not found:
        nothing = torch.zeros(0, device=student.device)
        found[0] = nothing, nothing.long(), nothing, nothing, nothing
    nll, top1, confidence, kl, spread = (
        torch.cat(column) for column in zip(*(found[first] for first in sorted(found)), strict=True))
    return RowMeasures(nll, top1, confidence, None if teacher is None else kl, spread if entropy else None)


class _Side:
    def __init__(self, form: Form, size: int, stack: ExitStack) -> None:
        self.form = form
        self.products = stack.enter_context(products(form, size)) if isinstance(form, Headed) else None
        self.start = 0

    def pieces(self, start: int, end: int) -> list[Piece]:
        """What makes the products of a chunk, if there are any to make."""
        self.start = start
        return [] if self.products is None else self.products.pieces(start, end)

    def logits(self, first: int, last: int) -> Tensor:
        if self.products is not None:
            return self.products.logits(self.products.room(self.start, last)[first - self.start :])
        assert isinstance(self.form, Dense)
        logits = self.form.logits[first:last]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _measured(
    labels: Tensor | None, logits: Tensor, teacher: Tensor | None = None, *, entropy: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    log_q = torch.log_softmax(logits, -1)
    confidence, top1 = log_q.max(-1)
    nll = torch.zeros_like(confidence)
    if labels is not None:
        chosen = log_q.gather(-1, labels.clamp_min(0)[:, None]).squeeze(-1)
        nll = torch.where(labels >= 0, -chosen, 0)
    kl = torch.zeros_like(confidence) if teacher is None else forward_kl(torch.log_softmax(teacher, -1), log_q)
    spread = torch.special.entr(log_q.exp()).sum(-1) if entropy else torch.zeros_like(confidence)
    return nll, top1, confidence, kl, spread


def _classes(form: Form) -> int:
    if isinstance(form, Headed):
        return form.head.classes
    if not isinstance(form, Dense):
        raise CompatibilityError(f"got {type(form).__name__}, a part of a distribution; measures need all of it: dense "
                                 "logits, or hidden states and their head")
    return form.logits.shape[-1]
