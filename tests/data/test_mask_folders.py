"""Folders of pictures and masks, laid out as common data sets are."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, Image

from stilla.data import sources
from stilla.errors import DataError
from tests.tasks.vision.scenes import folder


def names(split: Dataset, column: str) -> list[str | None]:
    stored = split.with_format(None).select_columns([column]).cast_column(column, Image(decode=False))[:][column]
    return [None if one is None else Path(one["path"]).name for one in stored]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


@pytest.mark.parametrize("layout", ["split inside", "split outside", "no splits", "ADE20K"])
def test_a_mask_belongs_to_the_picture_of_its_name(tmp_path: Path, layout: str) -> None:
    place = Path(folder(tmp_path / "d", ("train", "validation"), 3))
    if layout == "split outside":
        for split in ("train", "validation"):
            for name in ("images", "masks"):
                (tmp_path / "e" / split).mkdir(parents=True, exist_ok=True)
                shutil.move(place / name / split, tmp_path / "e" / split / name)
        place = tmp_path / "e"
    if layout == "no splits":
        place = Path(folder(tmp_path / "f", ("",), 3))
    if layout == "ADE20K":
        shutil.move(place / "masks", place / "annotations")
        for name in ("images", "annotations"):
            shutil.move(place / name / "train", place / name / "training")
    found = sources.read(str(place))
    assert set(found) == ({"train"} if layout == "no splits" else {"train", "validation"})
    assert names(found["train"], "image") == ["0.jpg", "1.jpg", "2.jpg"]
    assert names(found["train"], "mask") == ["0.png", "1.png", "2.png"]


def test_cityscapes_is_read_as_it_comes(tmp_path: Path) -> None:
    place = Path(folder(tmp_path / "d", ("train",), 1))
    for split in ("train", "val"):
        for top in ("leftImg8bit", "gtFine"):
            (tmp_path / "c" / top / split / "ulm").mkdir(parents=True)
        stem = "ulm_000000_000019"
        shutil.copy(place / "images/train/0.jpg", tmp_path / "c/leftImg8bit" / split / f"ulm/{stem}_leftImg8bit.jpg")
        for kind in ("color", "instanceIds", "labelIds", "labelTrainIds"):
            shutil.copy(place / "masks/train/0.png", tmp_path / "c/gtFine" / split / f"ulm/{stem}_gtFine_{kind}.png")
        (tmp_path / "c/gtFine" / split / f"ulm/{stem}_gtFine_polygons.json").write_text("{}")
    found = sources.read(str(tmp_path / "c"))
    assert set(found) == {"train", "validation"}
    assert names(found["validation"], "mask") == ["ulm_000000_000019_gtFine_labelTrainIds.png"]


def test_a_picture_without_mask_has_none_and_a_mask_without_picture_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(folder(tmp_path / "d", ("train",), 3))
    (place / "masks/train/1.png").unlink()
    (place / "images/train/2.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        found = sources.read(str(place))["train"]
    assert names(found, "mask") == ["0.png", None]
    assert "1 mask has no picture by the name (2): left out" in caplog.text


def test_two_masks_of_a_picture_and_masks_of_other_names_are_refused(tmp_path: Path) -> None:
    place = Path(folder(tmp_path / "d", ("train",), 2))
    shutil.copy(place / "masks/train/1.png", place / "masks/train/1.bmp")
    with pytest.raises(DataError, match=r"'1.bmp' and '1.png' are both masks of"):
        sources.read(str(place))
    other = Path(folder(tmp_path / "e", ("train",), 2))
    for path in sorted((other / "masks/train").iterdir()):
        path.rename(path.with_name(f"mask_{path.name}"))
    with pytest.raises(DataError, match="no picture has a mask of its own name"):
        sources.read(str(other))


def test_folders_of_classes_are_still_folders_of_classes(tmp_path: Path) -> None:
    place = Path(folder(tmp_path / "d", ("train",), 2))
    shutil.move(place / "masks", place / "cats")
    assert "label" in sources.read(str(place))["train"].column_names
