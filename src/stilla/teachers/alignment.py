"""Whether a teacher's answers stand where the labels are: a shift by one row trains without an error, and wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CacheError
from stilla.rows import row_measures
from stilla.signals import Form, Samples, TopK
from stilla.tasks.base import Segment

FEWEST = 32
"""Rows below which chance could decide; then nothing is said."""
FAR = 0.1
"""Nats per row by which labels in place have to be likelier, beside three standard errors."""


def refuse_shifted(said: Form, labels: Int[Tensor, " rows"], segments: Sequence[Segment], classes: int, where: str) -> None:
    """Hold the answers against the labels of their own rows, and of the rows before and after.

    Raises:
        CacheError: the labels of their own rows are not far likelier.
    """
    here = _surprise(said, labels, classes)
    found = []
    for shift, words in ((1, "one row later"), (-1, "one row earlier")):
        moved = labels.roll(-shift)
        inside = [row for segment in segments for row in range(segment.rows.start, segment.rows.stop)
                  if segment.rows.start <= row + shift < segment.rows.stop]
        rows = torch.tensor(inside, dtype=torch.long, device=labels.device)
        rows = rows[labels[rows] != moved[rows]]  # the same label twice says nothing about a shift
        if len(rows) < FEWEST:
            continue
        others = _surprise(said, moved, classes)
        gain = (others - here)[rows].double()
        spare = gain.mean().item() - max(FAR, 3 * gain.std().item() / math.sqrt(len(gain)))
        found.append((spare, here[rows].mean().item(), others[rows].mean().item(), words))
    spare, own, other, words = min(found, default=(0.0, 0.0, 0.0, ""))
    if spare < 0:
        raise CacheError(
            f"{where}: the teacher's answers predict the labels of their own rows with {own:.2f} nats, and those {words} "
            f"with {other:.2f}: they are shifted, of other texts, or of a teacher that has learnt nothing. Capture again "
            "into another place; --allow-weak-teacher goes on all the same")


def _surprise(said: Form, labels: Int[Tensor, " rows"], classes: int) -> Float[Tensor, " rows"]:
    """-log p(label) in nats; where only a part of the distribution is known, the rest is spread evenly."""
    if isinstance(said, TopK):
        found = said.ids == labels[:, None]
        rest = said.log_tail - math.log(max(1, classes - said.ids.shape[1]))
        inside = torch.where(found, said.log_probs, -torch.inf).amax(-1)
        return -torch.where(found.any(-1), inside, rest).clamp_min(-30)
    if isinstance(said, Samples):
        counted = torch.where(said.ids == labels[:, None], said.counts, 0).sum(-1)
        return -torch.log((counted + 0.1) / (said.counts.sum(-1) + 0.1 * classes))
    return row_measures(said, labels).nll
