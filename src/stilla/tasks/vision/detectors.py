"""Hugging Face's detectors: what their outputs mean, how they read pictures, and what of them is refused."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection
from transformers.loss.loss_d_fine import weighting_function

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.signals import Detections, Edges
from stilla.tasks.base import Loaded
from stilla.tasks.shared import loading
from stilla.tasks.shared.labels import Problem

_CLASS_HEADS = ("class_embed", "score_head", "enc_out_class_embed")
"""Parts of names of heads that stand within a body, where layers before the last one answer too."""
_TOLD = ("intermediate_logits", "intermediate_reference_points", "enc_topk_logits", "enc_topk_bboxes")
_CORNERS, _REFERENCES = "intermediate_predicted_corners", "initial_reference_points"
_BINS = ("decoder.up", "decoder.reg_scale")
"""How the names of the weights end that say where bins lie; their config says where they were when the model began."""
_QUERIES = ("num_queries", "num_detection_tokens")
_MASK = "pixel_mask"


@dataclass(frozen=True)
class Reader:
    """An image processor, and whether its model is told where a picture ends within its canvas."""

    processor: Any
    masked: bool
    patch: int = 1
    step: int = 1
    """A side of a canvas has to have a multiple of so many patches of so many pixels, else the model cannot read it."""

    @property
    def sees(self) -> tuple[bool, int, int]:
        """What decides, beside the processor, which canvas a model gets."""
        return self.masked, self.patch, self.step

    def save_pretrained(self, folder: Any) -> None:
        self.processor.save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {**self.processor.to_dict(), "masked": self.masked}


def load(source: ModelSource, problem: Problem, *, labelled: bool) -> Loaded:
    """A detector with its processor, as `Task.load` has it.

    Raises:
        CompatibilityError: as for `loading.classifier`; a model by import path; a processor that has to have torchvision.
    """
    if is_import_path(source.model):
        raise CompatibilityError(f"model: {source.model!r}: object-detection takes models of transformers "
                                 "(AutoModelForObjectDetection); expected a folder or a name of the hub.")
    model = loading.classifier(source, problem, AutoModelForObjectDetection, labelled=labelled, heads=_CLASS_HEADS)
    return Loaded(model if labelled else of_one_group(model), reader_for(source, model), source.model)


def reader_for(source: ModelSource, model: nn.Module) -> Reader:
    """By PIL: without torchvision, and giving the same values everywhere."""
    place, options = loading.where_processor(source)
    folder = Path(place).expanduser()
    files = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in files):
        raise CompatibilityError(f"{place!r} holds no image processor; copy its preprocessor_config.json there, or name its "
                                 "place: processor.")
    with loading.explained(place, "processor"):
        processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options)
    takes = _MASK in inspect.signature(type(model).forward).parameters
    return Reader(processor, takes and _MASK in processor(PIL.Image.new("RGB", (48, 64))), *sides_of(model))


def sides_of(model: nn.Module) -> tuple[int, int]:
    """Pixels of a patch, and of how many patches sides are multiples: RT-DETR and its like (D-FINE, DEIMv2) add maps to each
    other of which each is half as large as the one before; LW-DETR and RF-DETR part theirs into windows. 1, 1 of others."""
    config: Any = model.config
    said = config.to_dict()
    if said.get("feat_strides"):
        return 1, max(said["feat_strides"])
    backbone = said.get("backbone_config") or {}
    windows = backbone.get("num_windows_side") or backbone.get("num_windows") or 1
    return (int(backbone["patch_size"]), int(windows)) if windows > 1 and "patch_size" in backbone else (1, 1)


def of_one_group(model: nn.Module) -> nn.Module:
    """LW-DETR and its like with the first of their groups of queries.

    In training these have several groups side by side, which no other run sees; a student then has as many guesses in
    training as ever after.
    """
    config: Any = model.config
    if config.to_dict().get("group_detr", 1) == 1:
        return model
    config = copy.deepcopy(config)
    config.group_detr = 1
    made: nn.Module = type(model)(config)
    state = model.state_dict()
    made.load_state_dict({name: state[name][: len(value)] if value.shape != state[name].shape else state[name]
                          for name, value in made.state_dict().items()})
    return made.to(next(model.parameters()).dtype).train(model.training)


def queries_of(model: nn.Module) -> int:
    """How many guesses it makes of a picture, says its config.

    Raises:
        CompatibilityError: it does not say it.
    """
    config: Any = model.config
    said = config.to_dict()
    found = [said[name] for name in _QUERIES if isinstance(said.get(name), int)]
    if not found:
        raise CompatibilityError(f"{type(model).__name__} does not say how many queries it has: expected {_QUERIES[0]} in "
                                 "its config.")
    return int(found[0])


def unwritten(model: nn.Module, formats: Sequence[str]) -> list[str]:
    """Why it cannot be exported so. With ranges for activations from training examples, which convolutions take, other things
    are proposed by RT-DETR's encoder and looked at by deformable attention (20 to 100 % off in the tests' models); a
    YOLOS is a ViT, whose activations are quantised as they come (6 %)."""
    config: Any = model.config
    if "int8" not in formats or config.model_type == "yolos":
        return []
    return [f"int8: a {type(model).__name__} finds other things in it (its convolutions or the places that it looks at take "
            "more than 8 bits); of detectors YOLOS is written so. Use onnx"]


def detections(outputs: Any, classes: int) -> Detections:
    """What a detector gives, whatever its kind: `Detr` and `Yolos` have one column more than classes, for nothing; others a
    sigmoid for each class.

    Raises:
        CompatibilityError: it gives no boxes, or another number of classes.
    """
    logits, boxes = (outputs.get(name) for name in ("logits", "pred_boxes"))
    if logits is None or boxes is None or logits.shape[-1] not in (classes, classes + 1):
        got = "none" if logits is None or boxes is None else f"{logits.shape[-1]} columns"
        raise CompatibilityError(f"object-detection needs a model that gives `logits` of {classes} classes (and one column "
                                 f"more for nothing, if it has that) and `pred_boxes`; got {got}")
    return Detections(logits, boxes, logits.shape[-1] == classes + 1, edges=edges(outputs, -1))


def bins_of(model: nn.Module) -> tuple[float, ...]:
    """Where the bins of `D-FINE` and `DEIMv2` lie, in shares of a reference box's side; of others none.

    Their weights count distances in `reg_scale`-th parts of a side, so that models with others have the same outermost bins
    (2 · up of a side) and others between.
    """
    found = dict(model.named_parameters())
    up, scale = (next((found[name].detach().double().cpu() for name in found if name.endswith(end)), None) for end in _BINS)
    if up is None or scale is None:
        return ()
    config: Any = model.config
    return tuple((weighting_function(config.max_num_bins, up, scale) / scale.abs()).tolist())


def edges(outputs: Any, layer: int) -> Edges | None:
    """Of a layer, counted from the last (-1) on: more is said of layers than of edges, as the first boxes have none."""
    corners, references = (outputs.get(name) for name in (_CORNERS, _REFERENCES))
    if corners is None or references is None or -layer > corners.shape[1]:
        return None
    return Edges(corners[:, layer].unflatten(-1, (4, -1)), references[:, layer])


def earlier(outputs: Any) -> tuple[Detections, ...]:
    """What `RT-DETR` and its like (D-FINE, DEIMv2) say that their earlier layers find, and what the encoder proposes. Others
    do not say it without labels."""
    layers, places, proposed, boxes = (outputs.get(name) for name in _TOLD)
    found = []
    if layers is not None and places is not None:
        found = [Detections(layers[:, layer], places[:, layer], edges=edges(outputs, layer))
                 for layer in range(-layers.shape[1], -1)]
    if proposed is not None and boxes is not None:
        found.append(Detections(proposed, boxes))
    return tuple(found)


def inputs_of(pixels: Any, mask: Any, reader: Reader) -> Mapping[str, Any]:
    return {"pixel_values": pixels, _MASK: mask} if reader.masked else {"pixel_values": pixels}
