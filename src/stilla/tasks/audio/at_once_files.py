"""FastSpeech2-Conformer as one file, of as many frames as the durations within it come to:

`input_ids`, `attention_mask`, `durations` (of each token, in frames; -1: as the model thinks), whose voice it is ->
`spectrogram`, `duration_outputs`, the durations that it has taken.

What is written is an equal of the class in other words: tokens are stretched by comparing places with ends, and relative
positions are made for as many frames as there are, where the class keeps a table that it makes anew when a text is longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.tasks.base import Arrays, File, Graph, Joined

FILE = "model.onnx"
DECIDES = -1
"""The duration of a token whose model decides how long it lasts."""

_MOST = 1_000_000
_WHOSE = ("speaker_ids", "lang_ids", "speaker_embedding")


class _Places(nn.Module):
    """In the place of a stack's relative positions: T - 1 to -(T - 1) for T of them."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.width, self.scale = theirs.embed_dim, theirs.input_scale

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        length = states.shape[1]
        places = (length - 1 - torch.arange(2 * length - 1)).float()[:, None]
        rates = torch.exp(torch.arange(0, self.width, 2).float() * -(math.log(10000.0) / self.width))
        waves = torch.stack([torch.sin(places * rates), torch.cos(places * rates)], -1).flatten(1)
        return states * self.scale, waves[None].to(states.dtype)


class _AtOnce(nn.Module):
    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        for stack in (model.encoder, model.decoder):
            if not isinstance(stack.pos_enc, _Places):
                stack.pos_enc = _Places(stack.pos_enc)
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        ids, mask, durations, *whose = values
        own, told = mask.bool(), dict(zip(self.names, whose, strict=True))
        states, prosody = self.model.understood(ids, mask, *(told.get(name) for name in _WHOSE))
        thought = self.model.lasting(prosody[..., 0], own, None)
        lasting = torch.where(durations < 0, thought, torch.where(own, durations, 0))
        return self.model.framed(*_stretched(states, lasting))[1], lasting


def _stretched(
    states: Float[Tensor, "batch positions width"], lasting: Int[Tensor, "batch positions"]
) -> tuple[Float[Tensor, "batch frames width"], Bool[Tensor, "batch frames"]]:
    """As `at_once` does, in operations that an exporter knows."""
    ends = lasting.cumsum(1)
    number = ends[:, -1].max().item()
    torch._check(number >= 1)
    torch._check(number <= _MOST)
    frames = torch.arange(number)[None].expand(ends.shape[0], -1)
    there = frames < ends[:, -1:]
    token = (ends[:, None, :] <= frames[..., None]).long().sum(-1).clamp_max(ends.shape[1] - 1)
    found = states.gather(1, token[..., None].expand(-1, -1, states.shape[2]))
    return torch.where(there[..., None], found, 0.0), there


def graphs_of(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Graph]:
    whose = [name for name in _WHOSE if name in batch]
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "durations", *whose)}
    axes = {name: {0: "batch"} if name in whose else {0: "batch", 1: "positions"} for name in given}
    return {FILE: Graph(_AtOnce(model, whose).eval(), given, axes, ("spectrogram", "duration_outputs"))}


class AtOnceFile(Joined):
    """The file as the model's own forward, with the durations of a batch, or as it speaks by itself."""

    def __init__(self, files: Callable[[str], File]) -> None:
        self.file = files(FILE)
        self.bytes = self.file.bytes

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(batch, frames, bins)."""
        return torch.from_numpy(self.file.run(_arrays(inputs))["spectrogram"])

    def speak(self, inputs: Mapping[str, Tensor], most: Sequence[int]) -> list[Tensor]:
        """As the model does (`at_once.speak`): of a text that would have more frames than `most`, those."""
        given = _arrays(inputs)
        given["durations"] = np.full_like(given["input_ids"], DECIDES)
        out = self.file.run(given)
        longest = np.maximum(np.array(most, np.int64), 1)[:, None]
        if (out["duration_outputs"].sum(1, keepdims=True) > longest).any():
            ends = np.minimum(out["duration_outputs"].cumsum(1), longest)
            out = self.file.run({**given, "durations": np.diff(ends, axis=1, prepend=0)})
        lengths: NDArray[np.int64] = out["duration_outputs"].sum(1)
        return [torch.from_numpy(one[:length]) for one, length in zip(out["spectrogram"], lengths.tolist(), strict=True)]


def _arrays(inputs: Mapping[str, Tensor]) -> Arrays:
    return {name: one.cpu().numpy() for name, one in inputs.items()}
