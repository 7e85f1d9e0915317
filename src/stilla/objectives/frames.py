"""The teacher's spectrogram, frame by frame, and where it ends (of a teacher's mels: FastSpeech, Ren et al. 2019,
arXiv:1905.09263)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._spectra import STOP, apart, speech_of
from stilla.objectives._weights import weighed
from stilla.objectives.base import FeatureObjective
from stilla.signals import Signals


class Frames(FeatureObjective):
    """How far the student's frames are from the teacher's, both made of the same text and the same frames before, mean over
    frames.

    Of a frame of B mel bins, before (s, t) and behind the postnets (s', t'):

        1/B Σ_b |s'_b - t'_b| + before · 1/B Σ_b |s_b - t_b| + stop · (1 + 4 p) · KL(p || q),

    p and q the teacher's and the student's probability that the frame is the last, in nats; a sure end counts five times, as
    in `spectrogram`. Zero, and least, where both say the same.
    """

    def __init__(self, *, before: float = 1.0, stop: float = 1.0) -> None:
        super().__init__()
        weighed(before=before, stop=stop)
        self.before, self.stop = before, stop

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        said, told = speech_of("frames", student, "student"), speech_of("frames", teacher, "teacher")
        exact = torch.promote_types(said.stop.dtype, torch.float32)
        ours, theirs = said.stop.to(exact), told.stop.to(exact)
        last = theirs.sigmoid()
        # log p = -softplus(-z), log (1 - p) = -softplus(z)
        ends = last * (F.softplus(-ours) - F.softplus(-theirs)) + (1 - last) * (F.softplus(ours) - F.softplus(theirs))
        each = apart(said.after, told.after) + self.before * apart(said.before, told.before)
        return (each + self.stop * (1 + (STOP - 1) * last) * ends).sum()
