"""ONNX of models that write: with the keys and values of what was read before as inputs and outputs.

The layout is the one that optimum and transformers.js know:

- a causal decoder is `model.onnx`: `input_ids`, `attention_mask`, `position_ids` where the model takes them,
  `past_key_values.<layer>.key|value` -> `logits`, `present.<layer>.key|value`. The first step gives a past of length 0.
- one that sees pictures is `decoder_model_merged.onnx`, beside a file for pictures and one for tokens (`pictures.py`).
- an encoder with a decoder is `encoder_model.onnx` (-> `last_hidden_state`), `decoder_model.onnx` (the first step, or a whole
  target: -> `logits`, `present.<layer>.decoder|encoder.key|value`) and `decoder_with_past_model.onnx` (later steps, a token
  each). What the decoder attends to in the source is computed once, by the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import ExportError, all_of
from stilla.export import graphs
from stilla.export._quiet import require_onnx
from stilla.export.keys import Inputs
from stilla.export.pairs import write_pair
from stilla.export.pictures import write_seeing
from stilla.export.running import open_exported
from stilla.export.steps import takes_positions, write_steps


def write_decoder(
    model: nn.Module, batches: Sequence[Inputs], path: Path, axes: Mapping[str, tuple[str, ...]]
) -> Path:
    """Write the file, or the three, and compare their answers with the model's: whole texts, and the last token alone.

    Args:
        batches: of different sizes, the first of at least two rows.
        path: `model.onnx` in the folder to write to.
        axes: for each input the names of its first axes, which may have any size; the others are fixed.

    Returns:
        The file that stands for the format.

    Raises:
        ExportError: packages are missing, the exporter cannot hold the model, or the files answer differently.
    """
    require_onnx()
    if not isinstance(model, PreTrainedModel):
        raise ExportError(f"onnx: {type(model).__name__} is no Hugging Face model: how it keeps what it reads is not known")
    ready: Any = graphs.ready(model)
    if unknown := [name for name in batches[0] if name not in axes]:
        raise ExportError(f"onnx: the model takes {all_of(unknown)}, for which the task names no axes; known are "
                          f"{all_of(list(axes))}")
    if ready.config.is_encoder_decoder:
        made = write_pair(ready, batches[0], axes, path.parent)
    elif any(value.is_floating_point() for value in batches[0].values()):
        made = write_seeing(ready, batches[0], axes, path.parent)
    else:
        made = write_steps(ready, "input_ids", batches[0]["input_ids"], path)
    graphs.check(open_exported(made), lambda inputs: _whole(ready, inputs), batches)
    _check_steps(made, ready, batches[-1])
    return made


def _whole(model: Any, inputs: Inputs) -> Tensor:
    """(batch, positions, classes) of whole texts, padded places numbered as the files are told to."""
    more = {}
    if not model.config.is_encoder_decoder and takes_positions(model):
        more["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    logits: Tensor = model(**inputs, **more, use_cache=False).logits
    return logits


def _check_steps(path: Path, model: Any, batch: Inputs) -> None:
    """The logits of a text's last token must be the same when all before it comes as keys and values."""
    file = open_exported(path)
    with torch.no_grad():
        expected = _whole(model, batch)[:, -1]
    got = file.last_by_steps(batch)
    error = float((got - expected).abs().max())
    if not error <= graphs.TOLERANCE * max(1e-2, float(expected.abs().max())):
        raise ExportError(f"onnx: with keys and values from before, the files' logits differ from the model's by {error:.3g}")
