"""What the objectives over frames of spectrograms share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Signals, Speech

STOP = 5.0
"""How much more the frame counts with which an utterance ends than one with which it goes on, as SpeechT5 is trained."""


def speech_of(name: str, said: Signals, whose: str) -> Speech:
    """Raises:
        CompatibilityError: these are no frames of spectrograms.
    """
    if said.speech is None:
        raise CompatibilityError(f"`{name}` needs frames of spectrograms, and the {whose} makes none; it is for task: "
                                 "text-to-speech. Leave the objective out")
    return said.speech


def apart(said: Float[Tensor, "rows bins"], right: Float[Tensor, "rows bins"]) -> Float[Tensor, " rows"]:
    """1/B Σ_b |s_b - y_b| of every frame, in at least float32."""
    exact = torch.promote_types(said.dtype, torch.float32)
    return (said.to(exact) - right.to(exact)).abs().mean(-1)
