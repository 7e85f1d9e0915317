"""Row losses: every row objective of a step, evaluated in one pass over the student's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import RowObjective
from stilla.signals import Dense, Form, Headed

_ROWS = 256


@dataclass(frozen=True)
class RowMeasures:
    """What evaluation needs of every row; in float32.

    nll: negative log-likelihood of the label in nats, 0 where there is none. top1: the likeliest class.
    confidence: its log-probability. kl: KL(teacher || student) at temperature 1, where there is a teacher.
    """

    nll: Float[Tensor, " rows"]
    top1: Int[Tensor, " rows"]
    confidence: Float[Tensor, " rows"]
    kl: Float[Tensor, " rows"] | None


def row_loss(
    terms: Sequence[tuple[RowObjective, float]],
    student: Form,
    teacher: Form | None,
    labels: Tensor | None,
    progress: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, " terms"]]:
    """Sum over terms and rows of coefficient x loss, and each term's own sum over the rows, detached.

    The first is differentiable and has a gradient path also without rows. Both are in at least float32: the logits
    are brought to it once for all terms; bfloat16 logits alone would put 1e-4 nats and more into a divergence.
    """
    if teacher is not None and len(teacher) != len(student):
        raise CompatibilityError(f"the student has {len(student)} rows, the teacher {len(teacher)}")
    logits = _dense(student).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    said = _dense(teacher) if isinstance(teacher, Headed) else teacher
    sums = [objective.losses(logits, said, labels, progress).sum() for objective, _ in terms]
    weighted = [coefficient * total for (_, coefficient), total in zip(terms, sums, strict=True)]
    return torch.stack(weighted).sum(), torch.stack(sums).detach()


@torch.no_grad()
def row_measures(student: Form, labels: Tensor | None, teacher: Form | None = None) -> RowMeasures:
    """Of every row, never with more than a chunk of logits at a time."""
    pieces = []
    for start in range(0, max(1, len(student)), _ROWS):
        end = min(start + _ROWS, len(student))
        pieces.append(_measured(
            _dense(student.rows(start, end)).logits, None if labels is None else labels[start:end],
            None if teacher is None else _dense(teacher.rows(start, end)).logits))
    nll, top1, confidence, kl = (torch.cat(column) for column in zip(*pieces, strict=True))
    return RowMeasures(nll, top1, confidence, None if teacher is None else kl)


def _measured(logits: Tensor, labels: Tensor | None, teacher: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_q = torch.log_softmax(logits.float(), -1)
    confidence, top1 = log_q.max(-1)
    nll = torch.zeros_like(confidence)
    if labels is not None:
        known = labels >= 0
        chosen = log_q.gather(-1, labels.clamp_min(0)[:, None]).squeeze(-1)
        nll = torch.where(known, -chosen, 0)
    kl = torch.zeros_like(confidence)
    if teacher is not None:
        log_p = torch.log_softmax(teacher.float(), -1)
        kl = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0).sum(-1)
    return nll, top1, confidence, kl


def _dense(form: Form) -> Dense:
    if isinstance(form, Headed):
        return form.dense()
    if not isinstance(form, Dense):
        raise CompatibilityError(f"got {type(form).__name__}, which holds a part of a distribution; expected all logits")
    return form
