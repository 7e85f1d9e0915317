"""Utterances as frames: heard, with what is said in them, or made, as spectrograms."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Spoken:
    """Utterances as frames, and what is said in them without a place in time.

    lengths: how many of an utterance's frames are its own. targets: its symbols, -100 behind the last; none where nobody
    has said what they are. blank: the class that stands for no symbol.
    """

    logits: Float[Tensor, "batch frames classes"]
    lengths: Int[Tensor, " batch"]
    targets: Int[Tensor, "batch symbols"]
    blank: int


@dataclass(frozen=True)
class Prosody:
    """What a model that makes all frames of a text at once says of every token of it: token i of an utterance in row i of
    its frames, zeros behind the last.

    said: log(1 + frames that the token lasts), pitch, energy. given: log(1 + frames) that the utterance was made of. share:
    frames of the row's utterance by its tokens, 0 behind the last; sums over rows weighed by it are means over tokens.
    """

    said: Float[Tensor, "rows 3"]
    given: Float[Tensor, " rows"]
    share: Float[Tensor, " rows"]


@dataclass(frozen=True)
class Speech:
    """Frames of spectrograms (logarithms of mel energies) that a model makes of texts, those of all utterances end to end.

    before, after: without and with the corrections of the net behind the decoder (postnet). stop: the log-odds that a frame
    is its utterance's last; None of models that are told how long every token lasts, of which `prosody` is what they think
    of it. strays: how far from the diagonal of text and time the decoder looked for a frame, 0 to 1 (Tachibana et al. 2018,
    arXiv:1710.08969); None where nobody asked.
    """

    before: Float[Tensor, "rows bins"]
    after: Float[Tensor, "rows bins"]
    stop: Float[Tensor, " rows"] | None
    strays: Float[Tensor, " rows"] | None = None
    prosody: Prosody | None = None
