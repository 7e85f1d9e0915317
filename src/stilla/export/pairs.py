"""An encoder and a decoder as files: the encoder reads a text or hears a sound once, the decoder writes of it.

What the decoder may look at of the encoder's hidden states is the text's own mask; where the encoder folds what it hears into
frames and says which are the sound's own (Moonshine), this mask comes out beside them; where every input has one length
(Whisper), there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from stilla.export import ENCODER
from stilla.export.keys import PAST, TOKENS, Axes, Inputs, both, by_two, cache, export, flat
from stilla.export.writers import DECODER, MASK, TOLD, WITH_PAST

_SOURCE: Axes = {0: "batch", 1: "source_tokens"}
_HIDDEN = "encoder_hidden_states"


class _Encoder(nn.Module):
    """Whatever it takes -> (hidden states[, which of them are the source's own, where it is the encoder that says it])."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.names = model.get_encoder(), tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        said = self.encoder(**dict(zip(self.names, values)))
        mask = dict(said).get("attention_mask")
        return (said.last_hidden_state,) if mask is None else (said.last_hidden_state, mask)


class _Decoder(nn.Module):
    """([encoder_attention_mask, ]input_ids, encoder_hidden_states) -> (logits, keys and values of text and source)."""

    def __init__(self, model: nn.Module, heard: _Heard) -> None:
        super().__init__()
        self.model, self.heard = model, heard

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        *mask, ids, hidden = values
        out = self.model(decoder_input_ids=ids, **self.heard(hidden, *mask), use_cache=True,
                         past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()))
        text, source = (flat(one) for one in both(out.past_key_values))
        return (out.logits, *(tensor for layer in zip(by_two(text), by_two(source)) for pair in layer for tensor in pair))


class _DecoderWithPast(nn.Module):
    """([encoder_attention_mask, ]input_ids of one token, keys and values) -> (logits, keys and values of the text)."""

    def __init__(self, model: Any, heard: _Heard, width: int) -> None:
        super().__init__()
        self.model, self.heard, self.width = model, heard, width

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        mask, (ids, *past) = (values[:1], values[1:]) if self.heard.masked else ((), values)
        by_layer = [past[start : start + 4] for start in range(0, len(past), 4)]
        text = cache([tensor for layer in by_layer for tensor in layer[:2]])
        source = cache([tensor for layer in by_layer for tensor in layer[2:]])
        # never read: the source's keys and values are there; only its length counts
        hidden = past[2].new_zeros(past[2].shape[0], past[2].shape[2], self.width)
        out = self.model(decoder_input_ids=ids, **self.heard(hidden, *mask), use_cache=True,
                         past_key_values=EncoderDecoderCache(text, source))
        return (out.logits, *flat(both(out.past_key_values)[0]))


class _Heard:
    """What an encoder said, as a model takes it. `kind`: of what its encoder says; `masked`: whether a decoder is told which
    hidden states are the source's own; `within`: whether the encoder says it."""

    def __init__(self, kind: Any, *, masked: bool, within: bool) -> None:
        self.kind, self.masked, self.within = kind, masked, within

    def __call__(self, hidden: Tensor, mask: Tensor | None = None) -> Mapping[str, Any]:
        if self.within:
            return {"encoder_outputs": self.kind(last_hidden_state=hidden, attention_mask=mask)}
        return {"encoder_outputs": (hidden,), **({} if mask is None else {"attention_mask": mask})}


def write_pair(model: Any, batch: Inputs, axes: Mapping[str, tuple[str, ...]], folder: Path) -> Path:
    """The three files, of which the first stands for all. `axes`: of all inputs."""
    given = {name: value for name, value in batch.items() if name != TOLD}
    encoder = _Encoder(model, tuple(given)).eval()
    with torch.no_grad():
        hidden, *own = encoder(*given.values())
        said = model.get_encoder()(**given)
    read = {name: dict(enumerate(axes[name])) for name in given}
    export(encoder, given, read, ["last_hidden_state", *([MASK] if own else [])], folder / ENCODER, model)
    told = own or ([given["attention_mask"]] if "attention_mask" in given else [])
    mask = dict(zip([MASK], told))
    heard = _Heard(type(said), masked=bool(mask), within=bool(own))
    decoder, source = _Decoder(model, heard).eval(), _source(given, axes)
    text = batch[TOLD]
    text = text if text.shape[1] > 2 else torch.cat([text, text], dim=1)
    with torch.no_grad():
        _, *present = decoder(*mask.values(), text, hidden)
    kinds = [f"{layer}.{part}.{kind}" for layer in range(len(present) // 4) for part in ("decoder", "encoder")
             for kind in ("key", "value")]
    first = {**mask, "input_ids": text, _HIDDEN: hidden}
    export(decoder, first, {MASK: source, "input_ids": TOKENS, _HIDDEN: source},
           ["logits", *(f"present.{kind}" for kind in kinds)], folder / DECODER, model)
    past = {f"past_key_values.{kind}": tensor for kind, tensor in zip(kinds, present)}
    later: dict[str, Tensor] = {**mask, "input_ids": text[:, -1:], **past}
    of_source = {place: source[1] for place in [2] if 1 in source}
    known: dict[str, Axes] = {name: {0: "batch", **of_source} if ".encoder." in name else PAST for name in past}
    export(_DecoderWithPast(model, heard, int(hidden.shape[-1])).eval(), later,
           {**known, MASK: source, "input_ids": {0: "batch"}},
           ["logits", *(f"present.{kind}" for kind in kinds if ".decoder." in kind)], folder / WITH_PAST, model)
    return folder / ENCODER


def _source(given: Inputs, axes: Mapping[str, tuple[str, ...]]) -> Axes:
    """The axes of hidden states that may vary: their number too, where one of the encoder's inputs may be longer."""
    return _SOURCE if any(len(axes[name]) > 1 for name in given) else {0: "batch"}
