"""ONNX of models that write: with the keys and values of what was read before as inputs and outputs.

The layout is the one that optimum and transformers.js know:

- a causal decoder is `model.onnx`: `input_ids`, `attention_mask`, `position_ids` where the model takes them,
  `past_key_values.<layer>.key|value` -> `logits`, `present.<layer>.key|value`. The first step gives a past of length 0.
- an encoder with a decoder is `encoder_model.onnx` (-> `last_hidden_state`), `decoder_model.onnx` (the first step, or a whole
  target: -> `logits`, `present.<layer>.decoder|encoder.key|value`) and `decoder_with_past_model.onnx` (later steps, a token
  each). What the decoder attends to in the source is computed once, by the first.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from stilla.errors import ExportError
from stilla.export import ENCODER, graphs
from stilla.export._quiet import require_onnx
from stilla.export.running import DECODER, WITH_PAST, open_exported

Inputs = Mapping[str, Tensor]
Axes = Mapping[int, str]

_TOKENS: Axes = {0: "batch", 1: "tokens"}
_PAST: Axes = {0: "batch", 2: "past"}


def write_decoder(model: nn.Module, batches: Sequence[Inputs], path: Path) -> Path:
    """Write the file, or the three, and compare their answers with the model's: whole texts, and the last token alone.

    Args:
        batches: of different sizes, the first of at least two rows.
        path: `model.onnx` in the folder to write to.

    Returns:
        The file that stands for the format: `model.onnx` or `encoder_model.onnx`.

    Raises:
        ExportError: packages are missing, the exporter cannot hold the model, or the files answer differently.
    """
    require_onnx()
    if not isinstance(model, PreTrainedModel):
        raise ExportError(f"onnx: {type(model).__name__} is no Hugging Face model: how it keeps what it reads is not known")
    ready: Any = graphs.ready(model)
    if ready.config.is_encoder_decoder:
        _write_pair(ready, batches[0], path.parent)
    else:
        _write_causal(ready, batches[0], path)
    made = path.parent / ENCODER if ready.config.is_encoder_decoder else path
    graphs.check(open_exported(made), lambda inputs: _whole(ready, inputs), batches)
    _check_steps(made, ready, batches[-1])
    return made


def _whole(model: Any, inputs: Inputs) -> Tensor:
    """(batch, positions, classes) of whole texts, padded places numbered as the files are told to."""
    more = {}
    if not model.config.is_encoder_decoder and _takes_positions(model):
        more["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    logits: Tensor = model(**inputs, **more, use_cache=False).logits
    return logits


def _takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def _check_steps(path: Path, model: Any, batch: Inputs) -> None:
    """The logits of a text's last token must be the same when all before it comes as keys and values."""
    file = open_exported(path)
    with torch.no_grad():
        expected = _whole(model, batch)[:, -1]
    got = file.last_by_steps(batch)
    error = float((got - expected).abs().max())
    if not error <= graphs.TOLERANCE * max(1e-2, float(expected.abs().max())):
        raise ExportError(f"onnx: with keys and values from before, the files' logits differ from the model's by {error:.3g}")


# --- causal ---


class _Causal(nn.Module):
    """(input_ids, attention_mask[, position_ids], keys and values of every layer) -> (logits, keys and values)."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, values))
        out = self.model(**inputs, past_key_values=_cache(values[len(self.names) :]), use_cache=True)
        return (out.logits, *_flat(out.past_key_values))


def _write_causal(model: Any, batch: Inputs, path: Path) -> None:
    named = ["input_ids", "attention_mask"]
    if _takes_positions(model):
        named.append("position_ids")
    ids = batch["input_ids"]
    ids = ids if ids.shape[1] > 2 else torch.cat([ids, ids], dim=1)
    with torch.no_grad():
        past = _flat(model(input_ids=ids, use_cache=True, past_key_values=DynamicCache()).past_key_values)
    rows, read = ids.shape
    given = {"input_ids": ids[:, :2], "attention_mask": torch.ones(rows, read + 2, dtype=torch.int64),
             "position_ids": torch.arange(read, read + 2).expand(rows, 2)}
    inputs = {name: given[name] for name in named} | dict(zip(_past_names(len(past)), past))
    axes: dict[str, Axes] = dict.fromkeys(inputs, _PAST)
    axes |= dict.fromkeys(named, _TOKENS) | {"attention_mask": {0: "batch", 1: "past_and_tokens"}}
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in _past_names(len(past)))]
    _export(_Causal(model, named).eval(), inputs, axes, outputs, path, model)


def _past_names(count: int) -> list[str]:
    return [f"past_key_values.{layer}.{kind}" for layer in range(count // 2) for kind in ("key", "value")]


# --- encoder and decoder ---


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, *values: Tensor) -> Tensor:
        input_ids, attention_mask = values
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


class _Decoder(nn.Module):
    """(encoder_attention_mask, input_ids, encoder_hidden_states) -> (logits, keys and values of text and source)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        mask, ids, hidden = values
        out = self.model(decoder_input_ids=ids, encoder_outputs=(hidden,), attention_mask=mask, use_cache=True,
                         past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()))
        text, source = (_flat(one) for one in _both(out.past_key_values))
        return (out.logits, *(tensor for layer in zip(_by_two(text), _by_two(source)) for pair in layer for tensor in pair))


class _DecoderWithPast(nn.Module):
    """(encoder_attention_mask, input_ids of one token, keys and values) -> (logits, keys and values of the text)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.width = model, int(model.get_encoder()(torch.zeros(1, 2, dtype=torch.int64))[0].shape[-1])

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        mask, ids, *past = values
        by_layer = [past[start : start + 4] for start in range(0, len(past), 4)]
        text = _cache([tensor for layer in by_layer for tensor in layer[:2]])
        source = _cache([tensor for layer in by_layer for tensor in layer[2:]])
        # never read: the source's keys and values are there; only its length counts
        hidden = past[2].new_zeros(past[2].shape[0], past[2].shape[2], self.width)
        out = self.model(decoder_input_ids=ids, encoder_outputs=(hidden,), attention_mask=mask, use_cache=True,
                         past_key_values=EncoderDecoderCache(text, source))
        return (out.logits, *_flat(_both(out.past_key_values)[0]))


def _write_pair(model: Any, batch: Inputs, folder: Path) -> None:
    ids, mask = batch["input_ids"], batch["attention_mask"]
    source: Axes = {0: "batch", 1: "source_tokens"}
    encoder, decoder = _Encoder(model).eval(), _Decoder(model).eval()
    _export(encoder, {"input_ids": ids, "attention_mask": mask}, {"input_ids": source, "attention_mask": source},
            ["last_hidden_state"], folder / ENCODER, model)
    with torch.no_grad():
        hidden = encoder(ids, mask)
        text = batch["decoder_input_ids"]
        text = text if text.shape[1] > 2 else torch.cat([text, text], dim=1)
        _, *present = decoder(mask, text, hidden)
    kinds = [f"{layer}.{part}.{kind}" for layer in range(len(present) // 4) for part in ("decoder", "encoder")
             for kind in ("key", "value")]
    first = {"encoder_attention_mask": mask, "input_ids": text, "encoder_hidden_states": hidden}
    _export(decoder, first, {"encoder_attention_mask": source, "input_ids": _TOKENS, "encoder_hidden_states": source},
            ["logits", *(f"present.{kind}" for kind in kinds)], folder / DECODER, model)
    past = {f"past_key_values.{kind}": tensor for kind, tensor in zip(kinds, present)}
    later: dict[str, Tensor] = {"encoder_attention_mask": mask, "input_ids": text[:, -1:], **past}
    axes: dict[str, Axes] = {name: {0: "batch", 2: "source_tokens" if ".encoder." in name else "past"} for name in past}
    _export(_DecoderWithPast(model).eval(), later, {**axes, "encoder_attention_mask": source, "input_ids": {0: "batch"}},
            ["logits", *(f"present.{kind}" for kind in kinds if ".decoder." in kind)], folder / WITH_PAST, model)


# --- keys and values ---


def _cache(tensors: Sequence[Tensor]) -> DynamicCache:
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(_by_two(tensors)):
        cache.update(keys, values, layer)
    return cache


def _by_two(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(tensors[place], tensors[place + 1]) for place in range(0, len(tensors), 2)]


def _both(cache: EncoderDecoderCache) -> tuple[Any, Any]:
    return cache.self_attention_cache, cache.cross_attention_cache


def _flat(cache: Any) -> list[Tensor]:
    """Keys and values, layer by layer.

    Raises:
        ExportError: a layer keeps something else (a state of constant size).
    """
    flat: list[Tensor] = []
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if not isinstance(keys, Tensor) or not isinstance(values, Tensor):
            raise ExportError(f"onnx: a layer of this model keeps a {type(layer).__name__} of what it has read, not keys and "
                              "values: it cannot be written so that texts can be continued")
        flat += [keys, values]
    return flat


def _export(
    module: nn.Module, inputs: Inputs, axes: Mapping[str, Axes], outputs: Sequence[str], path: Path, model: Any
) -> None:
    shapes = tuple(dict.fromkeys(axes[name], Dim.DYNAMIC) for name in inputs)
    graphs.trace(module, inputs, shapes, outputs, path, type(model).__name__)
    graphs.clean(path, axes)


