"""What the objectives over frames of spectrograms share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Prosody, Signals, Speech

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


def off(said: Prosody, right: Float[Tensor, "rows numbers"]) -> Float[Tensor, " rows"]:
    """F/N Σ_k (s_k - y_k)² of every token of an utterance of N in F frames, over as many numbers as are right: summed over
    rows it is F times the mean over tokens."""
    exact = torch.promote_types(said.said.dtype, torch.float32)
    wrong = said.said[:, : right.shape[1]].to(exact) - right.to(exact)
    return said.share.to(exact) * wrong.square().sum(-1)
