"""Models that find objects with masks: what their outputs mean, how they read pictures, and what of them is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForUniversalSegmentation

from stilla.errors import CompatibilityError, all_of
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.signals import Segments
from stilla.tasks.base import Loaded
from stilla.tasks.shared import loading
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.narrowing import DRAWS, decided_before, draws
from stilla.tasks.vision.pixels import Processor
from stilla.tasks.vision.segmentation_models import on_grid, processor_for, whole_pictures

_CLASSES, _MASKS = "class_queries_logits", "masks_queries_logits"
_KNOWN = ("eomt", "mask2former", "maskformer")
_AUXILIARY = "output_auxiliary_logits"


def load(source: ModelSource, problem: Problem, size: tuple[int, int] | None, *, labelled: bool) -> Loaded:
    """A model with its processor, which resizes whole pictures to one size, as `Task.load` has it.

    Raises:
        CompatibilityError: as for `loading.classifier`; it is none of the families that are known.
    """
    family = "" if is_import_path(source.model) else loading.read_config(source).model_type
    if family not in _KNOWN:
        got = f"{source.model!r} is a {family}" if family else f"{source.model!r} is a class"
        raise CompatibilityError(f"model: {got}; image-segmentation takes MaskFormer, Mask2Former and EoMT, as transformers "
                                 "has them. For classes of pixels without objects there is semantic-segmentation.")
    model = loading.classifier(source, problem, AutoModelForUniversalSegmentation, labelled=labelled, axes=4)
    decided_before(model)
    processor = whole_pictures(processor_for(source), size, source.model)
    blank = PIL.Image.new("RGB", (48, 64))
    pixels = Processor(processor, blank)
    _check(model, torch.from_numpy(pixels.finish(np.stack([pixels.geometry(blank)] * 2))), source.model)
    return Loaded(model, processor, source.model)


def _check(model: nn.Module, pixels: Tensor, source: str) -> None:
    """One forward, to see what fails before anything is trained."""
    training = model.training
    config: Any = model.config
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    try:
        with torch.no_grad():
            outputs = model.eval()(pixel_values=pixels.to(dtype))
    except Exception as error:  # whatever a model raises
        raise CompatibilityError(f"{source}: its forward fails on pixel_values {tuple(pixels.shape)}: {error}") from error
    finally:
        model.train(training)
    segments(outputs, len(config.id2label))


def queries_of(model: nn.Module) -> int:
    """How many guesses it makes of a picture, says its config: MaskFormer's, that of its decoder.

    Raises:
        CompatibilityError: it does not say it.
    """
    config: Any = model.config
    said = config.to_dict()
    found = said.get("num_queries") or (said.get("decoder_config") or {}).get("num_queries")
    if not isinstance(found, int):
        raise CompatibilityError(f"{type(model).__name__} does not say how many queries it has: expected num_queries in its "
                                 "config.")
    return found


@contextmanager
def telling_earlier(model: nn.Module) -> Iterator[None]:
    """While it is trained it also gives what layers before the last one find, where its class can (Mask2Former); EoMT makes
    it and keeps it to itself."""
    config: Any = model.config
    if _AUXILIARY not in config.to_dict():
        yield
        return
    before = config.output_auxiliary_logits
    config.output_auxiliary_logits = True
    try:
        yield
    finally:
        config.output_auxiliary_logits = before


def unwritten(model: nn.Module, formats: Sequence[str]) -> list[str]:
    """Why it cannot be exported so."""
    found = []
    if "onnx" in formats and draws(model):
        found.append(f"onnx: {DRAWS}")
    config: Any = model.config
    if "int8" in formats and config.model_type != "eomt":  # whose activations are quantised as they come: errors of 1 %
        found.append(f"int8: a {type(model).__name__} finds other masks in it (its convolutions take more than 8 bits); of "
                     "models of masks EoMT is written so. Use onnx")
    return found


def segments(outputs: Any, classes: int) -> Segments:
    """What a model gives, whatever its kind.

    Raises:
        CompatibilityError: it gives no masks, or another number of classes.
    """
    if not isinstance(outputs, Mapping) or _CLASSES not in outputs or _MASKS not in outputs:
        got = all_of(list(outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise CompatibilityError(f"image-segmentation needs a model that gives `{_CLASSES}` and `{_MASKS}`; got {got}")
    return _of(outputs, classes)


def _of(outputs: Mapping[str, Tensor], classes: int) -> Segments:
    logits, masks = outputs[_CLASSES], outputs[_MASKS]
    if logits.shape[-1] != classes + 1:
        raise CompatibilityError(f"the model answers in {logits.shape[-1]} columns; expected {classes} classes and one for "
                                 "nothing")
    return Segments(logits, masks)


def earlier(outputs: Any, classes: int) -> tuple[Segments, ...]:
    """What layers before the last one find, the first of them before any has read the picture."""
    return tuple(_of(one, classes) for one in outputs.get("auxiliary_logits") or ())


def on(found: Segments, grid: tuple[int, int]) -> Segments:
    """With masks on this grid."""
    return Segments(found.logits, on_grid(found.masks, grid), found.exclusive, tuple(on(one, grid) for one in found.earlier))


def packed(found: Segments) -> Float[Tensor, "batch queries lines columns"]:
    """All that a model finds in one tensor: of each guess log-odds of each class by itself, in as many lines as they need
    (zeros behind the last), then its mask."""
    logits = found.independent()
    width = found.masks.shape[-1]
    lines = -(-logits.shape[-1] // width)
    filled = F.pad(logits, (0, lines * width - logits.shape[-1]))
    return torch.cat([filled.unflatten(-1, (lines, width)), found.masks.to(logits.dtype)], 2)


def unpacked(numbers: Float[Tensor, "batch queries lines columns"], classes: int) -> Segments:
    lines = -(-classes // numbers.shape[-1])
    return Segments(numbers[:, :, :lines].flatten(2)[..., :classes], numbers[:, :, lines:], exclusive=False)
