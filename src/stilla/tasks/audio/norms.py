"""Group norms over time that do not look at padding.

wav2vec2-base, HuBERT-base, WavLM-base and others normalise the channels of their first convolution over all of a sound's time
(`feat_extract_norm: group`). Of a padded sound that is the padding's time too: the same sound answers otherwise beside a
longer one, mask or not (differences of 0.1 in logits, and word error rates of 35 instead of 22 percent, transformers#18501).
Here padding is marked in the wave itself, by NaN, and the mean and variance are those of the frames before it: a padded sound
then answers as it does alone. Moonshine's encoder normalises over all of its first convolution's channels and time, and is
treated alike. Nothing of the model that is saved changes; without marks it computes what it always did.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderConvolutionModule

from stilla.tasks.audio.convolutions import folded_alone, normed_alone
from stilla.tasks.shared.front import fronted


def leave_padding_out(model: nn.Module) -> bool:
    """Change such layers of a model in place, once. Returns whether there are any that want padding marked."""
    found = False
    folded_alone(model)
    for module in model.modules():
        if _normalises_time(module):
            found = True
            fronted(module, _Marked)
        elif isinstance(module, ParakeetEncoderConvolutionModule):
            fronted(module, _Folding)  # is told by its mask what is padding
        elif normalises_whole_sounds(module):
            found = True
            if not isinstance(module, _MarkedSounds):
                norm: nn.Module = dict(module.named_children())["groupnorm"]
                fronted(norm, _MarkedNorm)
                fronted(module, _MarkedSounds)
    return found


def normalises_whole_sounds(module: nn.Module) -> bool:
    """An encoder of waves with one group for all channels behind its first of three convolutions (Moonshine)."""
    inside: dict[str, Any] = dict(module.named_children())
    norm = inside.get("groupnorm")
    return (isinstance(norm, nn.GroupNorm) and norm.num_groups == 1
            and all(isinstance(inside.get(f"conv{place}"), nn.Conv1d) for place in (1, 2, 3)))


def _normalises_time(module: nn.Module) -> bool:
    """A first convolution with a group for every channel."""
    inside: dict[str, Any] = dict(module.named_children())
    conv, norm = inside.get("conv"), inside.get("layer_norm")
    return (isinstance(conv, nn.Conv1d) and isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels
            and conv.in_channels == 1 and "activation" in inside)


class _Marked(nn.Module):
    """In front of a layer's class: the same layer, where nothing is marked."""

    conv: nn.Conv1d
    layer_norm: nn.GroupNorm
    activation: nn.Module

    def forward(self, hidden_states: Float[Tensor, "batch 1 samples"]) -> Float[Tensor, "batch channels frames"]:
        there = ~hidden_states.isnan()
        frames = self.conv(torch.where(there, hidden_states, 0.0))
        # a frame is the sound's own if its last sample is
        (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
        own = there[:, :, kernel - 1 :: stride]
        normed: Tensor = self.activation(normalised(frames, own, self.layer_norm))
        return torch.where(own, normed, 0.0)


def normalised(
    frames: Float[Tensor, "batch channels frames"], own: Bool[Tensor, "batch 1 frames"], norm: nn.GroupNorm
) -> Float[Tensor, "batch channels frames"]:
    """(x - mean) / sqrt(var + eps) · weight + bias of each channel, mean and variance over a sound's own frames."""
    wide = torch.promote_types(frames.dtype, torch.float32)
    values, share = frames.to(wide), own.to(wide)
    count = share.sum(-1, keepdim=True).clamp_min(1)
    mean = (values * share).sum(-1, keepdim=True) / count
    centred = (values - mean) * share
    variance = centred.square().sum(-1, keepdim=True) / count
    scaled = centred * torch.rsqrt(variance + norm.eps)
    return (scaled * norm.weight[:, None] + norm.bias[:, None]).to(frames.dtype)


class _MarkedSounds(nn.Module):
    """In front of an encoder's class: it hears silence where the padding is marked, and its norm does not look at it."""

    conv1: nn.Conv1d
    conv2: nn.Conv1d
    conv3: nn.Conv1d
    groupnorm: _MarkedNorm

    def forward(self, input_values: Float[Tensor, "batch samples"], *args: Any, **kwargs: Any) -> Any:
        there = ~input_values.isnan()
        (kernel,), (stride,) = self.conv1.kernel_size, self.conv1.stride
        self.groupnorm.own = there[:, None, kernel - 1 :: stride]
        try:
            return super().forward(torch.where(there, input_values, 0.0), *args, **kwargs)
        finally:
            self.groupnorm.own = None

    def _get_feat_extract_output_lengths(self, input_lengths: int) -> int:
        """Frames of so many samples, in whole numbers: transformers' go through fractions, which a graph of any length
        cannot hold."""
        for conv in (self.conv1, self.conv2, self.conv3):
            (kernel,), (stride,) = conv.kernel_size, conv.stride
            input_lengths = (input_lengths - kernel) // stride + 1
        return input_lengths


class _Folding(nn.Module):
    """In front of a convolution module with a batch norm within (Conformer's, of Parakeet), which in training counts padded
    frames: there it sees sounds' own."""

    pointwise_conv1: nn.Conv1d
    depthwise_conv: nn.Conv1d
    norm: nn.Module
    activation: nn.Module
    pointwise_conv2: nn.Conv1d

    def forward(
        self, hidden_states: Float[Tensor, "batch frames width"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, "batch frames width"]:
        if attention_mask is None or not self.norm.training:
            plain: Tensor = super().forward(hidden_states, attention_mask)
            return plain
        own = attention_mask[:, 0].any(-1)
        gated = F.glu(self.pointwise_conv1(hidden_states.transpose(1, 2)), dim=1)
        folded = self.depthwise_conv(torch.where(own[:, None], gated, 0.0)).transpose(1, 2)
        states = self.activation(normed_alone(folded, own, self.norm))
        made: Tensor = self.pointwise_conv2(states.transpose(1, 2))
        return made.transpose(1, 2)


class _MarkedNorm(nn.Module):
    """In front of a group norm's class: over a sound's own frames, and all channels. `own`: which these are, while the
    encoder around it runs."""

    own: Tensor | None = None
    weight: Tensor
    bias: Tensor
    eps: float

    def forward(self, frames: Float[Tensor, "batch channels frames"]) -> Float[Tensor, "batch channels frames"]:
        # a graph may not decide by values, and says the same without the short cut
        if self.own is None or (not torch.compiler.is_exporting() and bool(self.own.all())):
            plain: Tensor = super().forward(frames)
            return plain
        wide = torch.promote_types(frames.dtype, torch.float32)
        values, share = frames.to(wide), self.own.to(wide)
        count = share.sum((1, 2), keepdim=True).clamp_min(1) * frames.shape[1]
        mean = (values * share).sum((1, 2), keepdim=True) / count
        centred = (values - mean) * share
        scaled = centred * torch.rsqrt(centred.square().sum((1, 2), keepdim=True) / count + self.eps)
        return torch.where(self.own, scaled * self.weight[:, None] + self.bias[:, None], 0.0).to(frames.dtype)
