"""Handwritten digits: 1,797 pictures of 8 by 8 pixels that come along with scikit-learn.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998 (doi:10.24432/C50P49), as shipped in `sklearn.datasets.load_digits`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image
from numpy.typing import NDArray
from sklearn.datasets import load_digits

FRACTIONS = {"test": 0.2, "validation": 0.15}
_FULL = 16  # the brightest value that the pictures hold


def digits(folder: Path) -> Path:
    """Write train, validation and test as Parquet files of PNG pictures and labels; returns the folder.

    The split is fixed: drawn once by class, from nothing but the order in which scikit-learn ships them.
    """
    found: Any = load_digits()
    pixels = (found.images * 255 / _FULL).round().astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in _split(found.target).items():
        pictures = [{"bytes": _png(pixels[row]), "path": None} for row in rows]
        split = {"image": pictures, "label": found.target[rows].tolist()}
        Dataset.from_dict(split, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


def _split(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Rows of each split, every class in its share."""
    generator = np.random.default_rng(0)
    parts: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        for name, fraction in FRACTIONS.items():
            count = round(fraction * int((labels == label).sum()))
            parts[name].append(rows[:count])
            rows = rows[count:]
        parts["train"].append(rows)
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


def _png(pixels: NDArray[np.uint8]) -> bytes:
    written = BytesIO()
    PIL.Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def digits_teacher(
    folder: Path,
    *,
    size: int = 8,
    patch: int = 2,
    layers: int = 6,
    width: int = 128,
    heads: int = 4,
    seed: int = 0,
) -> Path:
    """A Vision Transformer with random weights and its image processor, as a Hugging Face folder, to be
    trained.

    `size` and `patch` in pixels. The same seed gives the same weights; global random state is left alone.
    """
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        image_size=size,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        num_labels=10,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    processor = ViTImageProcessorPil(size={"height": size, "width": size}, image_mean=half, image_std=half)
    processor.save_pretrained(folder)
    return folder
