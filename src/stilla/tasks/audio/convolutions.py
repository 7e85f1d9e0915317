"""Convolutions over frames that do not look at padding, within encoders whose own code lets them.

Encoders set padded frames to zero once, before their first layer, and whatever is convolved later sees what these have
become: data2vec's positions are five convolutions with norms between them, and Conformer's layers (wav2vec2-conformer) have
one each, with a batch norm that counts padded frames in training. SEW makes one of every two frames, and of a sound alone
leaves out a last that has no other; beside a longer one it makes one of it and padding. The same sound then answers otherwise
beside a longer one, mask or not. Here they see zeros behind a sound's own frames, as they do of the sound alone. Nothing of
the model that is saved changes.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.models.data2vec.modeling_data2vec_audio import Data2VecAudioPositionalConvEmbedding
from transformers.models.sew.modeling_sew import SEWEncoder
from transformers.models.sew_d.modeling_sew_d import SEWDEncoder
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
    Wav2Vec2ConformerEncoderLayer,
)

from stilla.tasks.shared.front import fronted


def folded_alone(model: nn.Module) -> None:
    """Change such layers of a model in place, once."""
    for module in model.modules():
        if isinstance(module, Data2VecAudioPositionalConvEmbedding):
            fronted(module, _Positions)
        elif isinstance(module, Wav2Vec2ConformerEncoderLayer):
            fronted(module, _Layer)
            fronted(module.conv_module, _Folding)
        elif isinstance(module, SEWEncoder | SEWDEncoder):
            fronted(module, _Squeezing)
            fronted(module.pos_conv_embed, _Whole)


def normed_alone(
    frames: Float[Tensor, "batch frames width"], own: Bool[Tensor, "batch frames"], norm: nn.Module
) -> Float[Tensor, "batch frames width"]:
    """By a batch norm in training, which sees a sound's own frames; zero behind them."""
    # an index in place of a mask: what is counted by a norm are the rows that it gets
    normed = norm(frames[own]).to(frames.dtype)
    return torch.zeros_like(frames).masked_scatter(own[..., None], normed)


class _Positions(nn.Module):
    """In front of data2vec's positions. The frames that its encoder has made zero are padding; one of a sound is never."""

    layers: nn.ModuleList

    def forward(self, hidden_states: Float[Tensor, "batch frames width"]) -> Float[Tensor, "batch frames width"]:
        own = (hidden_states != 0).any(-1)[:, None]
        states = hidden_states.transpose(1, 2)
        for layer in self.layers:
            states = layer(torch.where(own, states, 0.0))
        return states.transpose(1, 2)


class _Layer(nn.Module):
    """In front of a Conformer's layer, which is told what is padding, and does not tell it to its convolution."""

    conv_module: _Folding

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        self.conv_module.own = None if attention_mask is None else _own(attention_mask)
        try:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        finally:
            self.conv_module.own = None


class _Folding(nn.Module):
    """In front of such a layer's convolution. `own`: a sound's own frames, while the layer around it runs."""

    own: Bool[Tensor, "batch frames"] | None = None
    layer_norm: nn.Module
    pointwise_conv1: nn.Module
    glu: nn.Module
    depthwise_conv: nn.Module
    batch_norm: nn.Module
    activation: nn.Module
    pointwise_conv2: nn.Module
    dropout: nn.Module

    def forward(self, hidden_states: Float[Tensor, "batch frames width"]) -> Float[Tensor, "batch frames width"]:
        if self.own is None:
            plain: Tensor = super().forward(hidden_states)
            return plain
        gated = self.glu(self.pointwise_conv1(self.layer_norm(hidden_states).transpose(1, 2)))
        states = self.depthwise_conv(torch.where(self.own[:, None], gated, 0.0))
        if self.batch_norm.training:
            states = normed_alone(states.transpose(1, 2), self.own, self.batch_norm).transpose(1, 2)
        else:
            states = self.batch_norm(states)
        made: Tensor = self.dropout(self.pointwise_conv2(self.activation(states)))
        return made.transpose(1, 2)


class _Whole(nn.Module):
    """In front of SEW's positions. `heard`: what they see, while the encoder around them runs."""

    heard: Float[Tensor, "batch width frames"] | None = None

    def forward(self, hidden_states: Float[Tensor, "batch width frames"]) -> Float[Tensor, "batch width fewer"]:
        made: Tensor = super().forward(hidden_states if self.heard is None else self.heard)
        return made


class _Squeezing(nn.Module):
    """In front of SEW's encoder: its layers see no frame that is partly padding, its positions all of a sound."""

    pool: Any
    pos_conv_embed: _Whole

    def forward(
        self, hidden_states: Float[Tensor, "batch frames width"], attention_mask: Tensor | None = None, *args: Any,
        **kwargs: Any,
    ) -> Any:
        if attention_mask is None:
            return super().forward(hidden_states, *args, **kwargs)
        (size,) = self.pool.kernel_size
        lengths, frames = attention_mask.long().sum(1, keepdim=True), hidden_states.shape[1]
        if torch.compiler.is_exporting():  # a graph that holds for odd and for even numbers: the frame more is padding
            more = (frames + size - 1) // size * size - frames
            hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, more))
            attention_mask = nn.functional.pad(attention_mask, (0, more))
        whole = torch.arange(hidden_states.shape[1], device=hidden_states.device) < lengths - lengths % size
        heard = torch.where(attention_mask.bool()[..., None], hidden_states, 0.0)
        self.pos_conv_embed.heard = heard.transpose(1, 2)
        try:
            made = super().forward(heard.clone(), whole, *args, **kwargs)
        finally:
            self.pos_conv_embed.heard = None
        # as it ends a sound alone, whose last frame has no other
        made.last_hidden_state = torch.where(whole[..., None], made.last_hidden_state, 0.0)[:, :frames]
        return made


def _own(mask: Tensor) -> Bool[Tensor, "batch frames"]:
    """Which frames a layer's attention looks at, by what its first looks at: of all to all, or frames by themselves."""
    if mask.dim() == 4:
        mask = mask[:, 0, 0]
    return mask == 0 if mask.is_floating_point() else mask.bool()
