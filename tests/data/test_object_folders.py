"""Folders with a mask for each object of a picture: found by what lies in them, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import pytest

from stilla.data.sources import read
from stilla.errors import DataError
from tests.tasks.vision.segmenting import by_object, drawn


def test_splits_are_folders_around_and_masks_belong_to_their_picture(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val")):
        by_object(tmp_path / split, 3, 10 * seed)
    found = read(str(tmp_path))
    assert set(found) == {"train", "validation"}
    assert found["train"].column_names == ["image", "masks"]
    assert [len(one) for one in found["validation"]["masks"]] == [len(drawn(10 + number)[1]) for number in range(3)]


def test_a_folder_without_one_picture_is_named(tmp_path: Path) -> None:
    by_object(tmp_path / "f", 3)
    next((tmp_path / "f/id2/images").iterdir()).unlink()
    with pytest.raises(DataError, match="1 of 3 folders do not hold one picture in 'images' beside 'masks': 'id2'"):
        read(str(tmp_path / "f"))
