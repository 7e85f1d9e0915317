"""The digits that come along: whole, split once and for all, and a teacher that can learn them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.datasets import load_digits

from stilla import data
from stilla.recipe import Data, ModelSource
from stilla.samples.digits import digits, digits_teacher
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, datasets.Dataset]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    return data.load(Data(train=str(digits(tmp_path / "digits"))), seed=0)


@pytest.mark.slow
def test_every_digit_is_in_exactly_one_split(splits: dict[str, datasets.Dataset]) -> None:
    assert {name: len(split) for name, split in splits.items()} == {"train": 1169, "validation": 269, "test": 359}
    found = []
    for split in splits.values():
        for row in split.cast_column("image", datasets.Image(decode=False)):
            pixels = np.asarray(PIL.Image.open(BytesIO(row["image"]["bytes"])))
            found.append((row["label"], *pixels.ravel().tolist()))
    expected = [(label, *(image * 255 / 16).round().astype(int).ravel().tolist())
                for image, label in zip(load_digits().images, load_digits().target)]  # fmt: skip
    assert sorted(found) == sorted(expected)


def test_every_split_holds_the_classes_in_their_shares(splits: dict[str, datasets.Dataset]) -> None:
    whole = np.bincount(load_digits().target) / 1797
    for split in splits.values():
        assert split.features["label"].names == list("0123456789")
        assert np.abs(np.bincount(split["label"][:]) / len(split) - whole).max() < 0.005


def test_writing_again_changes_nothing(splits: dict[str, datasets.Dataset], tmp_path: Path) -> None:
    again = data.load(Data(train=str(digits(tmp_path / "again"))), seed=1)
    assert data.fingerprint.of_splits(again) == data.fingerprint.of_splits(splits)


@pytest.mark.slow
def test_the_teacher_takes_the_digits_and_is_the_same_each_time(
    splits: dict[str, datasets.Dataset], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for name in ("one", "two"):
        digits_teacher(tmp_path / name, layers=1, width=16, heads=2)
    assert torch.equal(before, torch.get_rng_state())
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    task = ImageClassification.understand(ImageClassificationData(train="x"), splits)
    loaded = task.load(ModelSource(model=str(tmp_path / "one")), labelled=False)
    prepared = task.prepare(splits["test"], loaded.processor, None, training=False)
    assert loaded.model(**prepared.collate([0, 1]).student).logits.shape == (2, 10)
    assert loaded.model.config.id2label[7] == "7"  # type: ignore[union-attr]
