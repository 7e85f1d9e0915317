"""Connectionist temporal classification: labels without a place in time (Graves et al. 2006, doi:10.1145/1143844.1143891)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import FeatureObjective
from stilla.signals import Dims, Signals

_NO_LABEL = -100


class CTC(FeatureObjective):
    """-log Σ_a Π_t softmax(student_t)_{a_t}, in nats per symbol: over all alignments a of frames that, repeats and blanks
    taken out, spell the labels.

    Divided by the symbols of a step's labelled utterances, so that how a step is cut changes nothing. Utterances without
    labels are zero. Labels that need more frames than there are (a repeated symbol needs a blank between) have no alignment
    and an infinite loss: the task leaves them out before, and says how many; none is made zero here.
    """

    needs_teacher = False
    count = "symbols"

    def __init__(self) -> None:
        super().__init__()

    def unmade(self, student: Dims) -> list[str]:
        return [] if student.classes else ["is made of logits of frames, and these examples have none. Leave it out"]

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        spoken = student.spoken
        if spoken is None:
            raise CompatibilityError("`ctc` needs frames of utterances and what is said in them; it is for task: "
                                     "speech-recognition. Use `labels`")
        logits = spoken.logits.to(torch.promote_types(spoken.logits.dtype, torch.float32))
        sizes = (spoken.targets != _NO_LABEL).sum(1)
        known = sizes > 0
        if not known.any():
            return logits.sum() * 0
        return F.ctc_loss(
            torch.log_softmax(logits[known], -1).transpose(0, 1), spoken.targets[known].clamp_min(0),
            spoken.lengths[known], sizes[known], blank=spoken.blank, reduction="sum")
