"""Row losses: every row objective of a step, evaluated in one pass over the student's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stilla.objectives.base import RowObjective
from stilla.signals import Form


def row_sums(
    objectives: Sequence[RowObjective], student: Form, teacher: Form | None, labels: Tensor | None, progress: float
) -> list[Tensor]:
    """Each objective's sum over the rows: differentiable scalars in at least float32, with a gradient path when empty.

    The student's logits are brought to float32 once for all objectives; bfloat16 logits alone would put 1e-4 nats
    and more of noise into a divergence.
    """
    logits = student.logits.to(torch.promote_types(student.logits.dtype, torch.float32))
    return [objective.losses(logits, teacher, labels, progress).sum() for objective in objectives]
