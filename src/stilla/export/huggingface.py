"""The student as a plain folder: what `from_pretrained` and `pipeline()` load, with nothing of ours inside.

What was written is loaded again before it takes its place: every weight has to be there bit for bit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import ExportError, all_of
from stilla.export._folders import replaced
from stilla.export._models import label_names, own_module
from stilla.export._quiet import quiet
from stilla.export.card import plain_usage
from stilla.models.configs import as_delivered, attention_of
from stilla.models.modes import in_eval_mode
from stilla.students import has_adapters, merged, put_back

WEIGHTS = "model.safetensors"

# Weights are compared bit for bit. Outputs cannot be: weights that are read from a file lie at other addresses, and on
# some kernels (convolutions, one thread) that alone changes the order of a sum. Relative to the largest output.
_TOLERANCE = 1e-5
# Merging an adapter changes the order of its sums: 1e-6 where that is all, 1e-3 where the machine multiplies in TF32.
_MERGED_TOLERANCE = 3e-3


def save_student(
    model: nn.Module, processor: Any | None, folder: Path, *, example: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a model with its tokenizer or image processor, replacing an older one at once.

    A Hugging Face model becomes a folder for `from_pretrained`, label names in its config, adapters merged. Any other
    module becomes `model.safetensors` (its own state dict, aliases written out, so that `load_state_dict` takes it as it
    is) and a README that shows how to load it.

    Args:
        example: keyword arguments of the model's forward; what was written must answer them as the model does, with its
            adapters before they were merged.

    Raises:
        ExportError: no room, not writable, or what was written is not the model. The old folder is then still there.
    """
    adapted, model = model, merged(model)
    needed = sum(tensor.nbytes for tensor in model.state_dict().values() if isinstance(tensor, Tensor))
    with replaced(folder, needed=needed, holds=WEIGHTS) as new, quiet():
        if isinstance(model, PreTrainedModel):
            with as_delivered(model):
                model.save_pretrained(new)
            written: nn.Module = _reloaded(model, new)
        else:
            _save_plain(model, new)
            written = _refilled(model, new)
        if processor is not None:
            processor.save_pretrained(new)
        _compare(model, written, example, folder)
        if example is not None and model is not adapted:
            _compare_merged(adapted, written, example, folder)
    return folder


def restore(model: nn.Module, folder: Path) -> None:
    """Put the weights that `save_student` wrote back into the same model.

    Raises:
        ExportError: they are not this model's.
    """
    try:
        if isinstance(model, PreTrainedModel):
            with quiet():
                weights = _reloaded(model, folder).state_dict()
                put_back(model, weights) if has_adapters(model) else model.load_state_dict(weights)
        else:
            own_module(model).load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, OSError) as error:
        raise ExportError(f"{folder}: holds no weights for this {type(own_module(model)).__name__}: {error}") from error


def _reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """What a user would get, with the attention that the model computes with."""
    try:
        written, info = type(model).from_pretrained(
            folder, attn_implementation=attention_of(model.config), use_safetensors=True,
            local_files_only=True, output_loading_info=True)
    except Exception as error:  # anything in the model's own class
        raise ExportError(f"{type(model).__name__} cannot be loaded from what its save_pretrained wrote: {error}") from error
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise ExportError(f"{type(model).__name__} was written incompletely: {wrong}")
    return written.to(model.device)


def _save_plain(model: nn.Module, folder: Path) -> None:
    inner = own_module(model)
    strange = [name for name, value in inner.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ExportError(f"{type(inner).__name__}: its state dict holds more than tensors ({all_of(strange[:5])}), which "
                          "safetensors cannot store. Register tensors as buffers; compute the rest in __init__")
    # cloned: safetensors refuses tensors that share memory, and strict loading wants every name
    state = {name: value.detach().cpu().contiguous().clone() for name, value in inner.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt", "labels": json.dumps(label_names(model))})
    text = f"# {type(inner).__name__}\n\n{plain_usage(model)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _refilled(model: nn.Module, folder: Path) -> nn.Module:
    """A copy of a plain module whose state was wiped and read from the file."""
    written = copy.deepcopy(model)
    inner = own_module(written)
    with torch.no_grad():
        for value in inner.state_dict().values():
            value.zero_()
    inner.load_state_dict(load_file(folder / WEIGHTS))
    return written


def _compare(model: nn.Module, written: nn.Module, example: Mapping[str, Tensor] | None, folder: Path) -> None:
    own, theirs = model.state_dict(), written.state_dict()
    lost = sorted(own.keys() ^ theirs.keys())
    other = lost or [name for name, value in own.items() if not _same_bits(value, theirs[name])]
    if other:
        raise ExportError(f"{folder}: what was written is not the model: {all_of(other[:5])} differ"
                          f"{' (NaN in the weights?)' if not lost else ''}. The old folder was kept")
    if example is None:
        return
    error, size = _difference(model, written, example)
    if not error <= _TOLERANCE * size:
        raise ExportError(f"{folder}: the written model answers an example differently, by {error:.3g}: something that "
                          "the model computes with is not in its config or weights. The old folder was kept")


def _compare_merged(adapted: nn.Module, written: nn.Module, example: Mapping[str, Tensor], folder: Path) -> None:
    """With the model that was trained: a copy that was merged wrongly would be written faithfully."""
    error, size = _difference(adapted, written, example)
    if not error <= _MERGED_TOLERANCE * size:
        raise ExportError(f"{folder}: with its adapters merged the model answers an example differently, by {error:.3g}: "
                          "their layers cannot be written as plain weights. Leave some out of `student.lora.targets`. The "
                          "old folder was kept")


def _difference(model: nn.Module, other: nn.Module, example: Mapping[str, Tensor]) -> tuple[float, float]:
    """By how much two models' answers differ at most, and the largest number of the first's, at least 1."""
    ours, theirs = _answer(model, example), _answer(other, example)
    error = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")
    return error, max(1.0, float(ours.abs().max()))


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def _answer(model: nn.Module, example: Mapping[str, Tensor]) -> Tensor:
    """(batch, ...) in float32 on the CPU; in eval mode, without gradients."""
    first = next(model.parameters())
    placed = {name: value.to(first.device, first.dtype if value.is_floating_point() else None)
              for name, value in example.items()}
    with in_eval_mode(model), torch.no_grad():
        outputs = model(**placed)
    answer: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"] if "logits" in outputs else outputs[0]
    return answer.float().cpu()
