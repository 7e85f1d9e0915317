"""FastSpeech2-Conformer as something that can be taught, stored and measured: all frames of a text at once, of how long each
of its tokens lasts.

transformers' own forward answers differently when it is trained: it then wants what pitch and energy are, gives durations as
logarithms, and divides losses by means of means. Its answer to a text depends on the batch in either mode: convolutions read
padding, whose hidden states are no zeros, and batch norms count it. Here

- durations are given, or are what the model thinks of them; so two models make frames that answer to each other;
- pitch and energy are always what the model itself thinks of them, as when it speaks;
- convolutions, norms and statistics see a text's own tokens and an utterance's own frames.

What is saved of a model is what transformers loads; nothing of it changes but the forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import FastSpeech2ConformerModel
from transformers.models.fastspeech2_conformer import modeling_fastspeech2_conformer as theirs

from stilla.errors import CompatibilityError
from stilla.tasks.audio.speaking import Spoken, corrected, normed
from stilla.tasks.shared.front import fronted

_MOST = 1e6
"""Frames of one token: whatever a model thinks of it, sums stay whole numbers."""


def teachable(model: FastSpeech2ConformerModel, where: str) -> None:
    """Give a model this forward, in place.

    Raises:
        CompatibilityError: transformers cannot run it as its config says.
    """
    config: Any = model.config
    if config.reduction_factor != 1:
        raise CompatibilityError(f"{where!r}: reduction_factor is {config.reduction_factor}: how long a token lasts is then "
                                 "counted in steps of several frames, in which transformers cannot train this family. Take a "
                                 "model with 1")
    if not config.use_cnn_in_conformer:
        raise CompatibilityError(f"{where!r}: use_cnn_in_conformer is false, with which transformers cannot run its layers")
    fronted(model, _AtOnce)
    for module in model.modules():
        for kind, front in _FRONTS.items():
            if isinstance(module, kind):
                fronted(module, front)


class _AtOnce(nn.Module):
    """In front of the model's class."""

    config: Any
    encoder: Any
    decoder: Any
    duration_predictor: Any
    pitch_predictor: Any
    energy_predictor: Any
    pitch_embed: Any
    energy_embed: Any
    speech_decoder_postnet: Any

    def forward(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        durations: Int[Tensor, "batch positions"] | None = None,
        speaker_ids: Int[Tensor, " batch"] | None = None,
        lang_ids: Int[Tensor, " batch"] | None = None,
        speaker_embedding: Float[Tensor, "batch width"] | None = None,
        most: Int[Tensor, " batch"] | None = None,
    ) -> Spoken:
        """`durations`: frames of every token; by default what the model thinks of them, as it speaks, and no more than
        `most` in all."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        own = mask.bool()
        states, prosody = self.understood(input_ids, mask, speaker_ids, lang_ids, speaker_embedding)
        lasting = self.lasting(prosody[..., 0].detach(), own, most) if durations is None else torch.where(own, durations, 0)
        stretched, there = _stretched(states, lasting)
        before, after = self.framed(stretched, there)
        return Spoken(after, before, prosody=prosody, lasting=lasting)

    def understood(
        self, input_ids: Int[Tensor, "batch positions"], mask: Int[Tensor, "batch positions"], speaker: Tensor | None,
        language: Tensor | None, voice: Tensor | None,
    ) -> tuple[Float[Tensor, "batch positions width"], Float[Tensor, "batch positions 3"]]:
        """A state of every token, with pitch and energy within, and what the model thinks of each (`Spoken.prosody`)."""
        own = mask.bool()
        with _own_places(self.encoder, own):
            states = self.encoder(input_ids, mask[:, None], return_dict=True).last_hidden_state
        states = self._of_whom(states, speaker, language, voice)
        apart = states.detach()
        pitch = _predicted(self.pitch_predictor, apart if self.config.stop_gradient_from_pitch_predictor else states, own)
        energy = _predicted(self.energy_predictor, apart if self.config.stop_gradient_from_energy_predictor else states, own)
        logs = _predicted(self.duration_predictor, states, own)
        states = states + self.energy_embed(energy[..., None]) + self.pitch_embed(pitch[..., None])
        return states, torch.stack([logs, pitch, energy], -1)

    def framed(
        self, stretched: Float[Tensor, "batch frames width"], there: Bool[Tensor, "batch frames"]
    ) -> tuple[Float[Tensor, "batch frames bins"], Float[Tensor, "batch frames bins"]]:
        """Frames of a state for each, in front of the postnet and behind it."""
        with _own_places(self.decoder, there):
            made = self.decoder(stretched, there.long()[:, None], return_dict=True).last_hidden_state
        net = self.speech_decoder_postnet
        before = net.feat_out(made)
        return before, corrected(net, before, there)

    def _of_whom(
        self, states: Float[Tensor, "batch positions width"], speaker: Tensor | None, language: Tensor | None,
        voice: Tensor | None,
    ) -> Float[Tensor, "batch positions width"]:
        """With whose voice it is, and in which language, as far as the model was made to be told."""
        parts: dict[str, Any] = dict(self.named_children())
        if speaker is not None:
            states = states + parts["speaker_id_embedding"](speaker)[:, None]
        if language is not None:
            states = states + parts["language_id_embedding"](language)[:, None]
        if voice is not None:
            wide = F.normalize(voice)[:, None].expand(-1, states.shape[1], -1)
            states = parts["projection"](torch.cat([states, wide], -1))
        return states

    def lasting(
        self, logs: Float[Tensor, "batch positions"], own: Bool[Tensor, "batch positions"],
        most: Int[Tensor, " batch"] | None,
    ) -> Int[Tensor, "batch positions"]:
        """Frames of every token as the model speaks. A text that would have none at all has one of each: transformers sees
        to that only where no text of the batch has any."""
        frames = (logs.float().exp() - 1).round().clamp(0.0, _MOST)
        lasting = torch.where(own, (frames * self.config.speaking_speed).round().long(), 0)
        lasting = torch.where(lasting.sum(1, keepdim=True) > 0, lasting, own.long())
        if most is None:
            return lasting
        ends = lasting.cumsum(1).minimum(most.clamp_min(1)[:, None])
        return ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))


def _stretched(
    states: Float[Tensor, "batch positions width"], lasting: Int[Tensor, "batch positions"]
) -> tuple[Float[Tensor, "batch frames width"], Bool[Tensor, "batch frames"]]:
    """The state of its token for every frame, zeros behind the last; and which frames are an utterance's own."""
    ends = lasting.cumsum(1)
    frames = torch.arange(int(ends[:, -1].max()), device=states.device).expand(len(states), -1)
    there = frames < ends[:, -1:]
    token = torch.searchsorted(ends, frames.contiguous(), right=True).clamp_max(states.shape[1] - 1)
    found = states.gather(1, token[..., None].expand(-1, -1, states.shape[2]))
    return torch.where(there[..., None], found, 0.0), there


def _predicted(
    predictor: Any, states: Float[Tensor, "batch positions width"], own: Bool[Tensor, "batch positions"]
) -> Float[Tensor, "batch positions"]:
    """A number of every token, of predictors of durations (as logarithms), of pitch and of energy; 0 of padding."""
    for layer in predictor.conv_layers:
        folded = layer.activation(layer.conv(_zeroed(states, own).transpose(1, 2)))
        states = layer.dropout(layer.layer_norm(folded.transpose(1, 2)))
    return torch.where(own, predictor.linear(states).squeeze(-1), 0.0)


def _zeroed(
    states: Float[Tensor, "batch places width"], own: Bool[Tensor, "batch places"]
) -> Float[Tensor, "batch places width"]:
    """What a convolution finds beyond the end of an example by itself."""
    return torch.where(own[..., None], states, 0.0)


# --- layers that leave padding out ---


class _Placed(nn.Module):
    """In front of a layer's class. own: (batch, places), which are an example's own, while the stack around it runs; without,
    it computes what it always did."""

    own: Tensor | None = None


class _Feeding(_Placed):
    conv1: nn.Conv1d
    conv2: nn.Conv1d
    dropout: nn.Module

    def forward(self, hidden_states: Float[Tensor, "batch places width"]) -> Float[Tensor, "batch places width"]:
        if self.own is None:
            plain: Tensor = super().forward(hidden_states)
            return plain
        folded = F.relu(self.conv1(_zeroed(hidden_states, self.own).transpose(1, 2))).transpose(1, 2)
        made: Tensor = self.conv2(_zeroed(self.dropout(folded), self.own).transpose(1, 2))
        return made.transpose(1, 2)


class _Convolving(_Placed):
    pointwise_conv1: nn.Conv1d
    depthwise_conv: nn.Conv1d
    norm: nn.Module
    activation: nn.Module
    pointwise_conv2: nn.Conv1d

    def forward(
        self, hidden_states: Float[Tensor, "batch places width"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, "batch places width"]:
        if self.own is None:
            plain: Tensor = super().forward(hidden_states, attention_mask)
            return plain
        gated = F.glu(self.pointwise_conv1(hidden_states.transpose(1, 2)), dim=1).transpose(1, 2)
        folded = self.depthwise_conv(_zeroed(gated, self.own).transpose(1, 2)).transpose(1, 2)
        states = self.activation(normed(self.norm, folded, self.own))
        made: Tensor = self.pointwise_conv2(_zeroed(states, self.own).transpose(1, 2))
        return made.transpose(1, 2)


_FRONTS: dict[type[nn.Module], type[nn.Module]] = {
    theirs.FastSpeech2ConformerMultiLayeredConv1d: _Feeding, theirs.FastSpeech2ConformerConvolutionModule: _Convolving}


@contextmanager
def _own_places(stack: nn.Module, own: Bool[Tensor, "batch places"]) -> Iterator[None]:
    placed = [module for module in stack.modules() if isinstance(module, _Placed)]
    for module in placed:
        module.own = own
    try:
        yield
    finally:
        for module in placed:
            module.own = None


@torch.no_grad()
def speak(model: Any, inputs: Mapping[str, Tensor], most: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """What a model makes of texts by itself, and how many frames of it each token lasts; at most so many frames of each."""
    told = model(**inputs, most=torch.tensor(most, device=inputs["input_ids"].device))
    frames, tokens = told.lasting.sum(1).tolist(), inputs["attention_mask"].sum(1).tolist()
    return ([one[:length] for one, length in zip(told.spectrogram, frames, strict=True)],
            [one[:length] for one, length in zip(told.lasting, tokens, strict=True)])
