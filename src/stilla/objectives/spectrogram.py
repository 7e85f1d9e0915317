"""The data's own spectrogram, frame by frame, and where it ends (Tacotron 2: Shen et al. 2018, arXiv:1712.05884)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives._spectra import STOP, apart, off, speech_of
from stilla.objectives._weights import weighed
from stilla.objectives.base import TargetObjective
from stilla.signals import Signals


class Spectrogram(TargetObjective):
    """How far the student's frames are from the data's, summed and divided by the number of frames, so that neither padding
    nor how a step is cut changes anything.

    Of a frame y of B mel bins, with what the student makes of it before (s) and behind its postnet (s'):

        1/B Σ_b |s'_b - y_b| + before · 1/B Σ_b |s_b - y_b| + stop · BCE + attention · strays + durations · D,

    BCE the binary cross-entropy of its being the last, in nats, five times as much where it is; strays how far from the
    diagonal of text and time the decoder looked for it, from 0 to 1, where the model's config guides its attention (Tachibana
    et al. 2018, arXiv:1710.08969). The first three are transformers' SpeechT5SpectrogramLoss; its fourth is ten times a mean
    over an utterance's tokens too: of a hundred of them what is `attention: 0.1` here. D, of models that are told how long
    every token lasts, is the mean over an utterance's tokens of (l - log(1 + frames))², l being what they think of it; such
    models say no end (FastSpeech 2: Ren et al. 2020, arXiv:2006.04558).
    """

    count = "frames"

    def __init__(
        self, *, before: float = 1.0, stop: float = 1.0, attention: float = 0.1, durations: float = 1.0
    ) -> None:
        super().__init__()
        weighed(before=before, stop=stop, attention=attention, durations=durations)
        self.before, self.stop, self.attention, self.durations = before, stop, attention, durations

    def total(self, student: Signals, progress: float) -> Float[Tensor, ""]:
        said, labels = speech_of("spectrogram", student, "student"), student.labels
        if labels is None:
            raise CompatibilityError("`spectrogram` needs the data's own sounds, and this batch has none; leave it out")
        right, last = labels[:, :-1], labels[:, -1]
        each = apart(said.after, right) + self.before * apart(said.before, right)
        if said.stop is not None:
            each = each + self.stop * _ends(said.stop, last)
        if said.strays is not None:
            each = each + self.attention * said.strays
        if said.prosody is not None:
            each = each + self.durations * off(said.prosody, said.prosody.given[:, None])
        return each.sum()


def _ends(said: Float[Tensor, " rows"], last: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """BCE of a frame's being the last, five times as much where it is."""
    ends = said.to(torch.promote_types(said.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(ends, last.to(ends.dtype), reduction="none",
                                              pos_weight=torch.tensor(STOP, dtype=ends.dtype, device=ends.device))
