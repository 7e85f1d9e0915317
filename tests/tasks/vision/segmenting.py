"""Tiny models of every family that finds objects with masks, and pictures with coloured shapes for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers
from datasets import Dataset, Features, Image, List
from numpy.typing import NDArray
from torch import nn
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from tests.tasks.vision.detecting import COLOURS, NAMES

SIZE = (40, 48)
_RESNET: dict[str, Any] = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mask2former": ("Mask2Former", "Mask2FormerForUniversalSegmentation", {
        "backbone_config": _RESNET, "feature_size": 64, "mask_feature_size": 32, "hidden_dim": 32,
        "encoder_feedforward_dim": 32, "encoder_layers": 1, "decoder_layers": 3, "num_attention_heads": 2,
        "dim_feedforward": 32, "num_queries": 6, "dropout": 0.0}),
    "maskformer": ("MaskFormer", "MaskFormerForInstanceSegmentation", {
        "backbone_config": _RESNET, "fpn_feature_size": 64, "mask_feature_size": 32, "dropout": 0.0,
        "decoder_config": {"model_type": "detr", "d_model": 16, "decoder_layers": 2, "encoder_layers": 1, "num_queries": 6,
                           "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32, "dropout": 0.0,
                           "encoder_attention_heads": 2, "use_timm_backbone": False, "backbone": None,
                           "backbone_config": {"model_type": "resnet"}}}),
    "eomt": ("Eomt", "EomtForUniversalSegmentation", {
        "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 32, "num_blocks": 1, "num_queries": 6, "num_upscale_blocks": 1, "hidden_dropout_prob": 0.0}),
}


def model(family: str, seed: int = 0, names: Sequence[str] = NAMES, **changes: Any) -> nn.Module:
    """With random weights, large enough that its queries differ."""
    config, kind, options = FAMILIES[family]
    torch.manual_seed(seed)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    settled = getattr(transformers, f"{config}Config")(**{**options, **labels, **changes})
    made: nn.Module = getattr(transformers, kind)(settled)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() > 1 and ("quer" in name or "predictor" in name or "mask_embed" in name):
                weight.normal_(0, 0.3)
    return made.eval()


def processor(size: int = 32) -> SegformerImageProcessorPil:
    return SegformerImageProcessorPil(size={"height": size, "width": size})


def folder(path: Path, family: str = "eomt", *, size: int = 32, **changes: Any) -> str:
    """A model as `save_pretrained` leaves it."""
    model(family, **changes).save_pretrained(path)
    processor(size).save_pretrained(path)
    return str(path)


def drawn(seed: int, most: int = 3, size: tuple[int, int] = SIZE
          ) -> tuple[NDArray[np.uint8], list[tuple[str, NDArray[np.bool_]]]]:
    """(height, width, 3) grey, and the name and mask of each coloured square in it; later ones lie on earlier ones."""
    draw = np.random.default_rng(seed)
    height, width = size
    pixels, masks = np.full((height, width, 3), 128, np.uint8), list[tuple[str, NDArray[np.bool_]]]()
    for _ in range(int(draw.integers(0, most + 1)) if seed % 3 else most):
        name = str(draw.choice(NAMES))
        side = int(draw.integers(10, 18))
        top, left = int(draw.integers(0, height - side)), int(draw.integers(0, width - side))
        mask = np.zeros(size, bool)
        mask[top : top + side, left : left + side] = True
        pixels[mask] = COLOURS[name]
        masks = [(kind, before & ~mask) for kind, before in masks] + [(name, mask)]
    return pixels, [(kind, mask) for kind, mask in masks if mask.sum() > 20]


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def coco(path: Path, count: int = 12, seed: int = 0, most: int = 3) -> str:
    """A file in COCO's form: rectangles that are whole as polygons, others as runs; ids are sparse."""
    path.mkdir(parents=True, exist_ok=True)
    ids = {name: 7 + 11 * number for number, name in enumerate(reversed(NAMES))}
    images, annotations = [], list[dict[str, Any]]()
    for number in range(count):
        pixels, objects = drawn(seed + number, most)
        PIL.Image.fromarray(pixels).save(path / f"{number}.png")
        images.append({"id": 100 + 3 * number, "file_name": f"{number}.png", "width": SIZE[1], "height": SIZE[0]})
        for name, mask in objects:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            (top, bottom), (left, right) = ((int(one[0]), int(one[-1]) + 1) for one in (rows, columns))
            ring = [left, top, right, top, right, bottom, left, bottom]
            runs = {"size": list(SIZE), "counts": _runs(mask)}
            annotations.append({
                "id": len(annotations) + 1, "image_id": 100 + 3 * number, "category_id": ids[name], "iscrowd": 0,
                "bbox": [left, top, right - left, bottom - top], "area": int(mask.sum()),
                "segmentation": [ring] if mask.sum() == (bottom - top) * (right - left) else runs})
    whole = {"images": images, "annotations": annotations,
             "categories": [{"id": number, "name": name} for name, number in ids.items()]}
    (path / "instances.json").write_text(json.dumps(whole))
    return str(path / "instances.json")


def numbered(objects: Sequence[tuple[str, NDArray[np.bool_]]], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    ids = np.zeros(size, np.uint8)
    for number, (_, mask) in enumerate(objects, 1):
        ids[mask] = 40 * number
    return ids


def png(values: NDArray[Any]) -> dict[str, Any]:
    written = BytesIO()
    PIL.Image.fromarray(values).save(written, "PNG")
    return {"bytes": written.getvalue(), "path": None}


def table(path: Path, count: int = 8, seed: int = 0, *, several: bool = False) -> str:
    """Parquet with `image` and `instances`, a picture of numbers, or `masks`, a list of pictures."""
    made = [drawn(seed + number) for number in range(count)]
    masks = [[png(mask.astype(np.uint8) * np.uint8(255)) for _, mask in objects] if several else png(numbered(objects))
             for _, objects in made]
    name, feature = ("masks", List(Image())) if several else ("instances", Image())
    Dataset.from_dict({"image": [png(pixels) for pixels, _ in made], name: masks},
                      features=Features({"image": Image(), name: feature})).to_parquet(path)
    return str(path)


def by_object(path: Path, count: int = 4, seed: int = 0) -> str:
    """A folder for each picture, as the 2018 Data Science Bowl has them."""
    for number in range(count):
        pixels, objects = drawn(seed + number)
        for inside in ("images", "masks"):
            (path / f"id{number}" / inside).mkdir(parents=True)
        PIL.Image.fromarray(pixels).save(path / f"id{number}/images/id{number}.png")
        for place, (_, mask) in enumerate(objects):
            PIL.Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path / f"id{number}/masks/m{place}.png")
    return str(path)


STUFF = ("grass", "sky")
"""Beside the names of things; a row of every picture at the very bottom is of nobody."""


def segments(seed: int, most: int = 3) -> tuple[NDArray[np.uint8], list[tuple[str, NDArray[np.bool_]]]]:
    """The same pictures with all that is no thing: dark grass and bright sky, in large parts."""
    pixels, objects = drawn(seed, most)
    free = ~np.any([mask for _, mask in objects] or [np.zeros(SIZE, bool)], 0)
    free[-1] = False
    upper = np.arange(SIZE[0])[:, None] < 18
    kinds = [("grass", free & ~upper, 60), ("sky", free & upper, 220)]
    for _, mask, value in kinds:
        pixels[mask] = value
    return pixels, [*objects, *((name, mask) for name, mask, _ in kinds if mask.any())]


def panoptic(path: Path, count: int = 8, seed: int = 0, most: int = 3, change: Any = None) -> str:
    """COCO's panoptic form: ids that need all three colours, PNGs in a folder of the file's name. change: of what the file
    holds, before it is written."""
    folder = path / "annotations" / "panoptic_val"
    for place in (folder, path / "val"):
        place.mkdir(parents=True, exist_ok=True)
    ids = {name: 3 + 7 * number for number, name in enumerate((*NAMES, *STUFF))}
    whole: dict[str, Any] = {"images": [], "annotations": [], "categories": [
        {"id": number, "name": name, "isthing": int(name in NAMES)} for name, number in ids.items()]}
    for number in range(count):
        pixels, several = segments(seed + number, most)
        PIL.Image.fromarray(pixels).save(path / "val" / f"{number}.png")
        colours, infos = np.zeros((*SIZE, 3), np.uint8), []
        for place, (name, mask) in enumerate(several, 1):
            colours[mask] = (place, 2 * place, 3)
            infos.append({"id": place + 256 * 2 * place + 65536 * 3, "category_id": ids[name], "iscrowd": 0,
                          "area": int(mask.sum())})
        PIL.Image.fromarray(colours).save(folder / f"{number}.png")
        whole["images"].append({"id": 50 + number, "file_name": f"{number}.png", "width": SIZE[1], "height": SIZE[0]})
        whole["annotations"].append({"image_id": 50 + number, "file_name": f"{number}.png", "segments_info": infos})
    if change is not None:
        change(whole)
    (path / "annotations" / "panoptic_val.json").write_text(json.dumps(whole))
    return str(path / "annotations" / "panoptic_val.json")
