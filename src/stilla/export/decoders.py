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
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from stilla.errors import ExportError
from stilla.export import ENCODER, graphs
from stilla.export._quiet import require_onnx
from stilla.export.keys import PAST, TOKENS, Axes, Inputs, cache, export, flat, past_names
from stilla.export.pairs import write_pair
from stilla.export.running import open_exported


def write_decoder(
    model: nn.Module, batches: Sequence[Inputs], path: Path, axes: Mapping[str, tuple[str, ...]]
) -> Path:
    """Write the file, or the three, and compare their answers with the model's: whole texts, and the last token alone.

    Args:
        batches: of different sizes, the first of at least two rows.
        path: `model.onnx` in the folder to write to.
        axes: for each input the names of its first axes, which may have any size; the others are fixed.

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
        write_pair(ready, batches[0], axes, path.parent)
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


class _Causal(nn.Module):
    """(input_ids, attention_mask[, position_ids], keys and values of every layer) -> (logits, keys and values)."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, values))
        out = self.model(**inputs, past_key_values=cache(values[len(self.names) :]), use_cache=True)
        return (out.logits, *flat(out.past_key_values))


def _write_causal(model: Any, batch: Inputs, path: Path) -> None:
    named = ["input_ids", "attention_mask"]
    if _takes_positions(model):
        named.append("position_ids")
    ids = batch["input_ids"]
    ids = ids if ids.shape[1] > 2 else torch.cat([ids, ids], dim=1)
    with torch.no_grad():
        past = flat(model(input_ids=ids, use_cache=True, past_key_values=DynamicCache()).past_key_values)
    rows, read = ids.shape
    given = {"input_ids": ids[:, :2], "attention_mask": torch.ones(rows, read + 2, dtype=torch.int64),
             "position_ids": torch.arange(read, read + 2).expand(rows, 2)}
    inputs = {name: given[name] for name in named} | dict(zip(past_names(len(past)), past))
    axes: dict[str, Axes] = dict.fromkeys(inputs, PAST)
    axes |= dict.fromkeys(named, TOKENS) | {"attention_mask": {0: "batch", 1: "past_and_tokens"}}
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in past_names(len(past)))]
    export(_Causal(model, named).eval(), inputs, axes, outputs, path, model)
