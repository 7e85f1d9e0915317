"""Models that give every pixel a class, how they see whole pictures, and what they say as logits on a grid."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

from stilla.errors import CompatibilityError, all_of
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.tasks.base import Loaded
from stilla.tasks.shared import loading
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.narrowing import decided_before
from stilla.tasks.vision.pixels import Processor

logger = logging.getLogger(__name__)

_FILES = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
_SCORE = 1e-6
"""Added to scores of pixels that no query claims, so that they have logarithms."""


def load(source: ModelSource, problem: Problem, size: tuple[int, int] | None, *, labelled: bool) -> Loaded:
    """A model of either kind, and its processor, which resizes whole pictures to one size.

    Raises:
        CompatibilityError: see `Task.load`; it does not answer for every class at every place.
    """
    known = AutoModelForUniversalSegmentation._model_mapping
    queries = not is_import_path(source.model) and type(loading.read_config(source)) in known
    auto: Any = AutoModelForUniversalSegmentation if queries else AutoModelForSemanticSegmentation
    model = loading.classifier(source, problem, auto, labelled=labelled, axes=4)
    decided_before(model)
    processor = whole_pictures(processor_for(source), size, source.model)
    blank = PIL.Image.new("RGB", (48, 64))
    pixels = Processor(processor, blank)
    _check(model, torch.from_numpy(pixels.finish(np.stack([pixels.geometry(blank)] * 2))), source.model)
    return Loaded(model, processor, source.model)


def processor_for(source: ModelSource) -> Any:
    """By PIL: without torchvision, and giving the same values everywhere."""
    place, options = loading.where_processor(source)
    folder = Path(place).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in _FILES):
        raise CompatibilityError(f"{place!r} holds no image processor; copy its preprocessor_config.json there, or name its "
                                 "place: processor.")
    with loading.explained(place, "processor"):
        return AutoImageProcessor.from_pretrained(place, backend="pil", **options)


def whole_pictures(processor: Any, size: tuple[int, int] | None, source: str) -> Any:
    """The processor with one size for all pictures, and nothing cut off or put around them: what a model says of a place is
    then said of the same place of the picture and its mask, as transformers' own post-processing takes it.

    `size`: height and width; None: the processor's own. What is changed is said, and saved with a student.

    Raises:
        CompatibilityError: it says no size.
    """
    own = processor.to_dict()
    height, width = size or _size(own, source)
    wanted: dict[str, Any] = {"do_resize": True, "size": {"height": height, "width": width}, "do_center_crop": False,
                              "do_pad": False, "keep_aspect_ratio": False, "ensure_multiple_of": 1, "do_split_image": False}
    # those that pad to a multiple do so whatever they are told: a side that is one needs none
    changed = {name: value for name, value in wanted.items() if name in own and _plain(own[name]) not in (value, None)}
    divisor = own.get("size_divisor") or 1
    if height % divisor or width % divisor:
        raise CompatibilityError(f"{source}: its processor fills pictures up to multiples of {divisor}; data.size: got "
                                 f"[{height}, {width}]; expected multiples of {divisor}")
    if not changed:
        return processor
    said = all_of([f"{name}: {_plain(own[name])} -> {value}" for name, value in changed.items()])
    logger.info("%s: pictures are read whole, at %d x %d pixels (%s)", source, height, width, said)
    settled = copy.deepcopy(processor)
    for name, value in changed.items():
        setattr(settled, name, value)
    return type(processor).from_dict(settled.to_dict())


def _plain(value: Any) -> Any:
    return {name: value[name] for name in value if value[name] is not None} if isinstance(value, dict) else value


def _size(own: dict[str, Any], source: str) -> tuple[int, int]:
    """Of what it cuts out, else of what it resizes to; a single edge is a square."""
    said = _plain(own.get("crop_size") if own.get("do_center_crop") else own.get("size")) or {}
    if {"height", "width"} <= said.keys():
        return int(said["height"]), int(said["width"])
    edge = said.get("shortest_edge") or said.get("longest_edge")
    if edge is None:
        raise CompatibilityError(f"{source}: its processor says no size ({said or 'none'}); set data.size: [height, width]")
    divisor = own.get("size_divisor") or 1
    return (-(-int(edge) // divisor) * divisor,) * 2


def _check(model: nn.Module, pixels: Tensor, source: str) -> None:
    """One forward, to see what fails before anything is trained."""
    training = model.training
    config: Any = model.config
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    try:
        with torch.no_grad():
            said = scores(model.eval()(pixel_values=pixels.to(dtype)))
    except CompatibilityError:
        raise
    except Exception as error:  # whatever a model raises
        raise CompatibilityError(f"{source}: its forward fails on pixel_values {tuple(pixels.shape)}: {error}") from error
    finally:
        model.train(training)
    classes = len(config.id2label)
    if said.dim() != 4 or said.shape[:2] != (2, classes):
        raise CompatibilityError(f"{source} gives {tuple(said.shape)} for two pictures; expected (2, {classes}, height, "
                                 "width): a number for each of the data's classes at every place")
    if classes < 2:
        raise CompatibilityError(f"{source} has one output: whether a pixel is something or not takes two classes here "
                                 "(background and object)")


def scores(outputs: Any) -> Float[Tensor, "batch classes height width"]:
    """A model's logits; of one that gives classes and masks of queries, log of Σ_q p_q(class) σ(mask_q), normalised over the
    classes of each pixel, which is what transformers makes semantic masks of.

    Raises:
        CompatibilityError: it gives neither.
    """
    if isinstance(outputs, Tensor):
        return outputs  # an exported file's: made by this function when it was written
    if "logits" in outputs:
        logits: Tensor = outputs["logits"]
        return logits
    if "class_queries_logits" not in outputs or "masks_queries_logits" not in outputs:
        raise CompatibilityError(f"the model gives {all_of(list(outputs))}; expected `logits`, or `class_queries_logits` and "
                                 "`masks_queries_logits`")
    classes = outputs["class_queries_logits"].float().softmax(-1)[..., :-1]  # the last is: nothing
    shared = torch.einsum("bqc,bqhw->bchw", classes, outputs["masks_queries_logits"].float().sigmoid()) + _SCORE
    return (shared / shared.sum(1, keepdim=True)).log()


def on_grid(
    logits: Float[Tensor, "batch classes height width"], grid: tuple[int, int]
) -> Float[Tensor, "batch classes rows columns"]:
    """Bilinear, corners not aligned, as transformers brings logits to masks; as they are where the grids are one."""
    if tuple(logits.shape[-2:]) == tuple(grid):
        return logits
    return F.interpolate(logits.float(), size=tuple(grid), mode="bilinear", align_corners=False)
