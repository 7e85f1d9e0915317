"""The teacher's spectrogram, frame by frame, where it ends, and how long every token lasts (of a teacher's mels: FastSpeech,
Ren et al. 2019, arXiv:1905.09263)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._spectra import STOP, apart, off, speech_of
from stilla.objectives._weights import weighed
from stilla.objectives.base import FeatureObjective
from stilla.signals import Signals


class Frames(FeatureObjective):
    """How far the student's frames are from the teacher's, both made of the same text and the same frames before, or of the
    same text and the same durations; mean over frames.

    Of a frame of B mel bins, before (s, t) and behind the postnets (s', t'):

        1/B Σ_b |s'_b - t'_b| + before · 1/B Σ_b |s_b - t_b| + stop · (1 + 4 p) · KL(p || q) + prosody · P,

    p and q the teacher's and the student's probability that the frame is the last, in nats; a sure end counts five times, as
    in `spectrogram`. P of an utterance is the mean over its tokens of the squares by which what the student thinks of them
    differs from what the teacher does: log(1 + frames), pitch and energy (FastSpeech 2: Ren et al. 2020, arXiv:2006.04558).
    Of ends and of prosody only what both say is compared. Zero, and least, where both say the same.
    """

    count = "frames"

    def __init__(self, *, before: float = 1.0, stop: float = 1.0, prosody: float = 1.0) -> None:
        super().__init__()
        weighed(before=before, stop=stop, prosody=prosody)
        self.before, self.stop, self.prosody = before, stop, prosody

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        said, told = speech_of("frames", student, "student"), speech_of("frames", teacher, "teacher")
        each = apart(said.after, told.after) + self.before * apart(said.before, told.before)
        if said.stop is not None and told.stop is not None:
            each = each + self.stop * _ends(said.stop, told.stop)
        if said.prosody is not None and told.prosody is not None:
            each = each + self.prosody * off(said.prosody, told.prosody.said)
        return each.sum()


def _ends(said: Float[Tensor, " rows"], told: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """(1 + 4 p) · KL(p || q)."""
    exact = torch.promote_types(said.dtype, torch.float32)
    ours, theirs = said.to(exact), told.to(exact)
    last = theirs.sigmoid()
    # log p = -softplus(-z), log (1 - p) = -softplus(z)
    apart = last * (F.softplus(-ours) - F.softplus(-theirs)) + (1 - last) * (F.softplus(ours) - F.softplus(theirs))
    return (1 + (STOP - 1) * last) * apart
