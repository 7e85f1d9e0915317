"""Small pictures of coloured blocks with masks, and tiny models that give every pixel a class."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Features, Image
from numpy.typing import NDArray
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.vision.segmentation import SemanticSegmentation
from stilla.tasks.vision.segmentation_section import SemanticSegmentationData

NAMES = ("sky", "tree", "road")
COLOURS = np.array([[90, 140, 230], [30, 160, 40], [120, 110, 105]], np.int64)


def drawn(seed: int, size: tuple[int, int] = (40, 56)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(height, width, 3) colours and (height, width) ids of 0 to 2: sky above road, and a tree; a strip is 255."""
    generator = np.random.default_rng(seed)
    height, width = size
    ids = np.zeros(size, np.uint8)
    ids[int(generator.integers(height // 3, 2 * height // 3)):] = 2
    left, top = int(generator.integers(0, width // 2)), int(generator.integers(2, height // 2))
    ids[top : top + height // 3, left : left + width // 3] = 1
    pixels = COLOURS[ids] + generator.integers(-25, 26, (height, width, 3))
    ids[:, :2] = 255
    return pixels.clip(0, 255).astype(np.uint8), ids


def png(values: NDArray[Any], mode: str | None = None, palette: bool = False) -> bytes:
    picture = PIL.Image.fromarray(values) if mode is None else PIL.Image.fromarray(values).convert(mode)
    if palette:
        picture.putpalette([part for one in range(256) for part in (one, 255 - one, (7 * one) % 256)])
    written = BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def table(path: Path, count: int, first: int = 0, masks: bool = True, size: tuple[int, int] = (40, 56)) -> str:
    """Parquet with `image` and `mask`, as datasets of the hub have them."""
    made = [drawn(first + number, size) for number in range(count)]
    rows: dict[str, Any] = {"image": [{"bytes": png(pixels), "path": None} for pixels, _ in made]}
    if masks:
        rows["mask"] = [{"bytes": png(ids), "path": None} for _, ids in made]
    Dataset.from_dict(rows, features=Features({name: Image() for name in rows})).to_parquet(path)
    return str(path)


def folder(place: Path, splits: Sequence[str] = ("train", "validation"), count: int = 6, palette: bool = True) -> str:
    """images/<split>/x.jpg and masks/<split>/x.png."""
    for number, split in enumerate(splits):
        for name in ("images", "masks"):
            (place / name / split).mkdir(parents=True, exist_ok=True)
        for one in range(count):
            pixels, ids = drawn(100 * number + one)
            PIL.Image.fromarray(pixels).save(place / "images" / split / f"{one}.jpg", quality=95)
            (place / "masks" / split / f"{one}.png").write_bytes(png(ids, palette=palette))
    return str(place)


def processor(size: int = 32, **changes: Any) -> SegformerImageProcessorPil:
    return SegformerImageProcessorPil(size={"height": size, "width": size}, **changes)


def config(names: Sequence[str] = NAMES, **changes: Any) -> SegformerConfig:
    return SegformerConfig(**{
        "hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 2, 2], "num_attention_heads": [1, 2, 3, 4],
        "sr_ratios": [4, 2, 1, 1],
        "decoder_hidden_size": 16, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0,
        "id2label": dict(enumerate(names)), "label2id": {name: one for one, name in enumerate(names)}, **changes})


def segformer(place: Path, names: Sequence[str] = NAMES, size: int = 32, std: float = 0.0, **changes: Any) -> Path:
    """With random weights; `std`: of all matrices, where answers are to differ from place to place."""
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(config(names, **changes))
    if std:
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, std)
    model.save_pretrained(place)
    processor(size).save_pretrained(place)
    return place


def section(**changes: Any) -> SemanticSegmentationData:
    return SemanticSegmentationData(**{"train": "unread", "labels": list(NAMES), **changes})


def loaded(task: SemanticSegmentation, place: Path) -> Loaded:
    return task.load(ModelSource(model=str(place)), labelled=True)
