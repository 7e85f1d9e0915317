"""SpeechT5's text-to-speech as something that can be taught, stored and measured: the same whoever stands beside it.

transformers' own forward gives the spectrogram alone, and its answer to a sentence depends on chance and on the batch:

- the net in front of the decoder (prenet) drops half of its numbers in evaluation too, as Tacotron 2 does (Shen et al. 2018,
  arXiv:1712.05884, sec. 2.2), by masks that every call draws anew. Here evaluation drops by a fixed table, so that a teacher
  says the same twice; training draws, for every sentence by itself.
- the net behind it (postnet) convolves over padding, and its batch norms count it. Here both see an utterance's own frames.

What is saved of a model is what transformers loads; nothing of it changes but the forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, SpeechT5ForTextToSpeech
from transformers.utils import ModelOutput

from stilla.errors import CompatibilityError
from stilla.tasks.shared.front import fronted

_AT_ONCE = 1024


@dataclass
class Spoken(ModelOutput):
    """Of a forward. spectrogram: as transformers gives it, behind the postnet; before: in front of it. stop: log-odds that a
    frame is the last. strays: in training, where the config guides attention, as `Speech` has them. prosody, lasting: of
    models that make all frames at once, log(1 + frames), pitch and energy of every token, and how many frames it had."""

    spectrogram: Float[Tensor, "batch frames bins"] | None = None
    before: Float[Tensor, "batch frames bins"] | None = None
    stop: Float[Tensor, "batch frames"] | None = None
    strays: Float[Tensor, "batch frames"] | None = None
    prosody: Float[Tensor, "batch positions 3"] | None = None
    lasting: Int[Tensor, "batch positions"] | None = None


def teachable(model: SpeechT5ForTextToSpeech, where: str) -> None:
    """Give a model this forward, in place.

    Raises:
        CompatibilityError: its prenet lets nothing through.
    """
    config: Any = model.config
    dropped = config.speech_decoder_prenet_dropout
    if config.speech_decoder_prenet_layers and not 0 < dropped < 1:
        raise CompatibilityError(f"{where!r}: speech_decoder_prenet_dropout is {dropped:g}, with which transformers lets "
                                 "nothing of earlier frames through to the decoder (it keeps so large a share of them). Set "
                                 "0.5 in its config.json")
    fronted(model, _Teachable)


class _Teachable(nn.Module):
    """In front of the model's class."""

    config: Any
    speecht5: Any
    speech_decoder_postnet: Any

    def forward(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"],
        decoder_input_values: Float[Tensor, "batch steps bins"],
        decoder_attention_mask: Int[Tensor, "batch steps"],
        speaker_embeddings: Float[Tensor, "batch width"],
    ) -> Spoken:
        guided = self.training and bool(self.config.use_guided_attention_loss)
        read = self.speecht5.encoder(input_values=input_ids, attention_mask=attention_mask, return_dict=True)
        entering = _entering(self.speecht5.decoder.prenet, decoder_input_values, speaker_embeddings, drawn=self.training)
        made = self.speecht5.decoder.wrapped_decoder(
            hidden_states=entering, attention_mask=decoder_attention_mask, encoder_hidden_states=read[0],
            encoder_attention_mask=attention_mask, use_cache=False, output_attentions=guided, return_dict=True)
        found = spoken_of(self, made.last_hidden_state, decoder_attention_mask)
        if guided:
            steps = _strays(made.cross_attentions, attention_mask, decoder_attention_mask, self.config)
            found.strays = steps.repeat_interleave(self.config.reduction_factor, dim=1)
        return found


def spoken_of(model: Any, hidden: Float[Tensor, "batch steps width"], mask: Int[Tensor, "batch steps"]) -> Spoken:
    """What hidden states of a decoder become: `reduction_factor` frames each."""
    net, config = model.speech_decoder_postnet, model.config
    before = net.feat_out(hidden).view(len(hidden), -1, config.num_mel_bins)
    own = mask.bool().repeat_interleave(config.reduction_factor, dim=1)
    return Spoken(corrected(net, before, own), before, net.prob_out(hidden).view(len(hidden), -1))


def corrected(
    net: Any, before: Float[Tensor, "batch frames bins"], own: Bool[Tensor, "batch frames"]
) -> Float[Tensor, "batch frames bins"]:
    """The postnet, which finds beyond an utterance's last frame what it finds beyond a batch's: zeros."""
    states = torch.where(own[..., None], before, 0.0)
    for layer in net.layers:
        states = normed(layer.batch_norm, layer.conv(states.transpose(1, 2)).transpose(1, 2), own)
        states = layer.dropout(states if layer.activation is None else layer.activation(states))
    return before + states


def normed(
    norm: Any, states: Float[Tensor, "batch places width"], own: Bool[Tensor, "batch places"]
) -> Float[Tensor, "batch places width"]:
    """A batch norm of utterances' own places, zeros elsewhere."""
    if not norm.training:  # each place by itself, in as many steps whatever the mask, as an exported file has to
        return torch.where(own[..., None], norm(states.flatten(0, 1)).view(states.shape).to(states.dtype), 0.0)
    # an index in place of a mask: what is counted by a norm are the rows that it gets
    return torch.zeros_like(states).masked_scatter(own[..., None], norm(states[own]).to(states.dtype))


def _entering(
    prenet: Any, values: Float[Tensor, "batch steps bins"], voices: Float[Tensor, "batch width"], *, drawn: bool,
    first: int = 0,
) -> Float[Tensor, "batch steps width"]:
    """What enters a decoder of frames and voices. `first`: the number of the first of these steps."""
    steps, share = values.shape[1], float(prenet.config.speech_decoder_prenet_dropout)

    def kept(place: int, states: Tensor) -> Tensor:
        if drawn:
            return torch.rand_like(states, dtype=torch.float32) < share
        return torch.from_numpy(_table(place, first + steps, states.shape[2], share)[first:]).to(states.device)

    return entering(prenet, values, voices, kept, prenet.encode_positions.pe[:, first : first + steps])


def entering(
    prenet: Any, values: Float[Tensor, "batch steps bins"], voices: Float[Tensor, "batch width"],
    kept: Callable[[int, Tensor], Tensor], positions: Float[Tensor, "1 steps width"],
) -> Float[Tensor, "batch steps width"]:
    """The same. kept: which numbers of a layer's states are not dropped. positions: of these steps."""
    states, share = values, float(prenet.config.speech_decoder_prenet_dropout)
    for place, layer in enumerate(prenet.layers):
        states = F.relu(layer(states))
        # so transformers has it: `share` of them are kept, not dropped; the same at one half
        states = torch.where(kept(place, states), states, 0.0) / (1 - share)
    places = prenet.encode_positions
    states = prenet.final_layer(states)
    states = places.dropout(states + places.alpha * positions.to(states.dtype))
    voice = F.normalize(voices).unsqueeze(1).expand(-1, states.shape[1], -1)
    joined: Tensor = F.relu(prenet.speaker_embeds_layer(torch.cat([states, voice], -1)))
    return joined


_tables: dict[tuple[int, int], NDArray[np.float32]] = {}


def tables(prenet: Any) -> list[Bool[NDArray[np.bool_], "steps units"]]:
    """Which numbers each of a prenet's layers keeps in evaluation, at every step that its decoder has a place for."""
    steps, share = prenet.config.max_speech_positions, float(prenet.config.speech_decoder_prenet_dropout)
    return [_table(place, steps, layer.out_features, share) for place, layer in enumerate(prenet.layers)]


def _table(place: int, steps: int, units: int, share: float) -> Bool[NDArray[np.bool_], "steps units"]:
    """Which numbers a prenet's layer keeps at each step: the same ones for as many steps as there are."""
    known = _tables.get((place, units), np.zeros((0, units), np.float32))
    if len(known) < steps:
        draws = [np.random.default_rng((place, block)).random((_AT_ONCE, units), np.float32)
                 for block in range(-(-steps // _AT_ONCE))]
        known = _tables[place, units] = np.concatenate(draws)
    kept: NDArray[np.bool_] = known[:steps] < share
    return kept


def _strays(
    attentions: Sequence[Float[Tensor, "batch heads steps positions"]], text: Int[Tensor, "batch positions"],
    steps: Int[Tensor, "batch steps"], config: Any,
) -> Float[Tensor, "batch steps"]:
    """Σ_n a_tn (1 - exp(-(n/N - t/T)² / 2σ²)) of every step t, mean over the guided heads of all layers that ran."""
    if not attentions:  # LayerDrop left out every layer
        return torch.zeros(steps.shape, device=steps.device)
    number, length = text.sum(1).clamp_min(1), steps.sum(1).clamp_min(1)
    across = torch.arange(text.shape[1], device=text.device) / number[:, None]
    along = torch.arange(steps.shape[1], device=text.device) / length[:, None]
    apart = (across[:, None] - along[..., None]).square() / (2 * config.guided_attention_loss_sigma**2)
    heads = None if config.guided_attention_loss_num_heads < 0 else config.guided_attention_loss_num_heads
    looked = torch.cat([one[:, :heads] for one in attentions], 1)
    found: Tensor = (looked.to(apart.dtype) * (1 - (-apart).exp())[:, None]).sum(-1).mean(1)
    return found


@torch.no_grad()
def speak(
    model: PreTrainedModel, input_ids: Int[Tensor, "batch positions"], attention_mask: Int[Tensor, "batch positions"],
    speaker_embeddings: Float[Tensor, "batch width"], most: Sequence[int], threshold: float = 0.5,
) -> list[Float[Tensor, "frames bins"]]:
    """What a model makes of texts by itself, frame after frame: until it says that it has ended, as transformers'
    `generate_speech` has it, or has made `most` frames, or as many as its decoder has places for.

    Each is made as it would be alone.
    """
    whole: Any = model
    config, core = whole.config, whole.speecht5
    read = core.encoder(input_values=input_ids, attention_mask=attention_mask, return_dict=True)[0]
    steps = [min(max(1, -(-one // config.reduction_factor)), config.max_speech_positions) for one in most]
    entering = read.new_zeros(len(input_ids), 1, config.num_mel_bins)
    hidden, past, ended = list[Tensor](), None, [0] * len(input_ids)
    for step in range(max(steps)):
        made = core.decoder.wrapped_decoder(
            hidden_states=_entering(core.decoder.prenet, entering, speaker_embeddings, drawn=False, first=step),
            attention_mask=None, encoder_hidden_states=read, encoder_attention_mask=attention_mask, past_key_values=past,
            use_cache=True, return_dict=True)
        past, last = made.past_key_values, made.last_hidden_state
        hidden.append(last)
        entering = whole.speech_decoder_postnet.feat_out(last)[..., -config.num_mel_bins :]
        over = whole.speech_decoder_postnet.prob_out(last).sigmoid().sum((1, 2)) >= threshold
        for row, one in enumerate(over.tolist()):
            if not ended[row] and (one or step + 1 >= steps[row]):
                ended[row] = step + 1
        if all(ended):
            break
    lengths = torch.tensor(ended, device=read.device)
    mask = torch.arange(len(hidden), device=read.device) < lengths[:, None]
    frames = spoken_of(whole, torch.cat(hidden, 1), mask).spectrogram
    assert frames is not None
    return [one[: length * config.reduction_factor] for one, length in zip(frames, ended, strict=True)]
