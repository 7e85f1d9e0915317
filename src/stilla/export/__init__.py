"""What a student is handed over as. Adding a format: a file in this folder with `write`, and a line in `KINDS`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilla.errors import ExportError, RecipeError, did_you_mean, one_of

if TYPE_CHECKING:
    from torch import nn

    from stilla.export.card import model_card, plain_usage, transformers_usage, write_card
    from stilla.export.huggingface import restore, save_student
    from stilla.export.session import OnnxModel
    from stilla.tasks.base import Prepared, Task

__all__ = ["KINDS", "MODEL", "NEEDS", "TOWER", "OnnxModel", "export", "find", "main_file", "missing_packages", "model_card",
           "plain_usage", "restore", "save_student", "tower_file", "transformers_usage", "write_card"]

KINDS: Mapping[str, str] = {
    "onnx": "stilla.export.onnx:write",
    "int8": "stilla.export.int8:write",
}

NEEDS: Mapping[str, tuple[str, ...]] = dict.fromkeys(KINDS, ("onnx", "onnxruntime", "onnxscript"))
"""Packages that a format needs beside Stilla's own; `pip install "stilla[onnx]"` brings them."""

MODEL, ENCODER, TOWER, HEADS = "model.onnx", "encoder_model.onnx", "vision_model.onnx", "heads.json"
MERGED = "decoder_model_merged.onnx"
"""The file in a format's folder that holds the model, or its first part where it has an encoder and a decoder, or towers; the
decoder of one that sees pictures; or the list of its heads, each of which lies in a folder of its own."""

VISION, EMBED = "vision_encoder.onnx", "embed_tokens.onnx"
"""What lies beside the decoder of a model that sees pictures, as Transformers.js has it."""


def tower_file(tower: str) -> str:
    """What the file of one of a model's towers is called, as optimum and Transformers.js have it."""
    return f"{tower}_model.onnx"


def main_file(folder: Path) -> Path | None:
    """The file that stands for a format; None where there is none."""
    return next((folder / name for name in (MODEL, ENCODER, MERGED, TOWER, HEADS) if (folder / name).is_file()), None)


_LAZY = {
    "OnnxModel": "stilla.export.session",
    "model_card": "stilla.export.card",
    "plain_usage": "stilla.export.card",
    "restore": "stilla.export.huggingface",
    "save_student": "stilla.export.huggingface",
    "transformers_usage": "stilla.export.card",
    "write_card": "stilla.export.card",
}


def find(kind: str) -> Callable[[nn.Module, Task, Prepared, Path], str]:
    """What writes a format: (model, task, examples, file) -> a sentence for its README.

    Raises:
        RecipeError: no such format.
    """
    if kind not in KINDS:
        raise RecipeError(f"export: got {kind!r}; expected {one_of(list(KINDS))}.{did_you_mean(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    write: Callable[[nn.Module, Task, Prepared, Path], str] = getattr(importlib.import_module(module), name)
    return write


def missing_packages(kind: str) -> list[str]:
    """Packages that a format needs and that are not installed, seen without importing them."""
    return [name for name in NEEDS.get(kind, ()) if importlib.util.find_spec(name) is None]


def export(kind: str, model: nn.Module, processor: Any | None, task: Task, prepared: Prepared, folder: Path) -> Path:
    """Write a folder that can be deployed as it is: `model.onnx`, tokenizer or image processor, config, README.

    An older folder is replaced at once, when everything is written and checked.

    Args:
        prepared: training examples, for tracing, checking and calibrating; a few hundred are enough.

    Returns:
        The model file.

    Raises:
        RecipeError: no such format.
        ExportError: packages are missing, the format cannot hold the model, the disk is full.
    """
    from stilla.export.deploy import write_folder, write_heads
    from stilla.export.graphs import unwritten

    if why := [*task.unwritten(model, [kind]), *unwritten(model, [kind])]:
        raise ExportError("; ".join(why))
    if heads := task.handed_over(model, processor, prepared):
        return write_heads(find(kind), heads, folder)
    return write_folder(find(kind), model, processor, task, prepared, folder)


def __getattr__(name: str) -> Any:
    """`stilla.export.OnnxModel` without importing torch before it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
