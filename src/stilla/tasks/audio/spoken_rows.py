"""Rows of batches of utterances that are spoken: their frames, in the first of which stands what is said of their tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stilla.signals import Batch, Prosody, Side
from stilla.tasks.answers import NO_ANSWER


def own_frames(batch: Batch) -> Bool[Tensor, "batch frames"]:
    labels: Float[Tensor, "batch frames numbers"] = batch["labels"]
    return labels[..., 0] != NO_ANSWER


def prosody_of(said: Float[Tensor, "batch positions 3"], batch: Batch, side: Side) -> Prosody:
    """Token i of an utterance in the row of its frame i; there are at least as many frames as tokens (`Fitting`)."""
    own = own_frames(batch)
    return with_shares(_in_frames(said, own)[own], batch, side)


def with_shares(said: Float[Tensor, "rows 3"], batch: Batch, side: Side) -> Prosody:
    """What was said in such rows, with what the batch says of each."""
    inputs, own = batch[side.value], own_frames(batch)
    tokens, frames = inputs["attention_mask"].sum(1, keepdim=True), own.sum(1, keepdim=True)
    share = torch.where(torch.arange(own.shape[1], device=own.device) < tokens, frames / tokens, 0.0)
    given = _in_frames(torch.log1p(inputs["durations"].to(share.dtype))[..., None], own)
    return Prosody(said, given[own][:, 0], share[own])


def _in_frames(
    of_tokens: Float[Tensor, "batch positions numbers"], own: Bool[Tensor, "batch frames"]
) -> Float[Tensor, "batch frames numbers"]:
    """Zeros behind the last token: what is said of padding is 0."""
    made = of_tokens.new_zeros(*own.shape, of_tokens.shape[2])
    some = min(made.shape[1], of_tokens.shape[1])
    made[:, :some] = of_tokens[:, :some]
    return made


def content(inputs: Mapping[str, Tensor], example: int, frames: int) -> bytes:
    """What one utterance is made of on one side, whatever it is padded to; inputs are on the CPU."""
    read = int(inputs["attention_mask"][example].sum())
    found = [np.array([read, frames], np.int64)]
    for name, value in inputs.items():
        if name == "decoder_input_values":
            found.append(value[example, : int(inputs["decoder_attention_mask"][example].sum())].numpy())
        elif name in ("input_ids", "durations"):
            found.append(value[example, :read].numpy().astype(np.int32))
        elif not name.endswith("attention_mask"):
            found.append(value[example].numpy())
    return b"".join(np.ascontiguousarray(one).tobytes() for one in found)
