"""Masks are read as the ids that they are, held against their pictures, and never smoothed."""

from __future__ import annotations

import json
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Features, Image

from stilla import data
from stilla.errors import DataError
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.vision.masks import Ids, Packed, ids_of
from stilla.tasks.vision.scenes import Change
from stilla.tasks.vision.segmentation import SemanticSegmentation
from stilla.tasks.vision.segmentation_data import mask_column
from tests.tasks.vision.scenes import NAMES, drawn, folder, png, processor, section, table


def rows(pairs: list[tuple[Any, Any]], names: tuple[str, str] = ("image", "mask")) -> Dataset:
    sides = {name: [None if one is None else {"bytes": one, "path": None} for one in side]
             for name, side in zip(names, zip(*pairs))}
    return Dataset.from_dict(sides, features=Features({name: Image() for name in names}))


def good(number: int, count: int = 4) -> list[tuple[bytes, bytes]]:
    return [(png(pixels), png(ids)) for pixels, ids in (drawn(number + one) for one in range(count))]


def understood(train: Dataset, **said: Any) -> SemanticSegmentation:
    return SemanticSegmentation.understand(section(**said), {"train": train, "validation": rows(good(50))})


def stored(picture: PIL.Image.Image, kind: str = "PNG") -> PIL.Image.Image:
    written = BytesIO()
    picture.save(written, kind)
    return PIL.Image.open(BytesIO(written.getvalue()))


@pytest.mark.parametrize("how", ["grey", "palette", "16 bits", "1 bit", "grey as RGB"])
def test_ids_are_the_numbers_that_were_stored(how: str) -> None:
    _, ids = drawn(0)
    if how == "1 bit":
        ids = (ids == 1).astype(np.uint8)
    pictures = {"grey": lambda: PIL.Image.fromarray(ids), "palette": lambda: PIL.Image.open(BytesIO(png(ids, palette=True))),
                "16 bits": lambda: PIL.Image.fromarray(ids.astype(np.uint16)),
                "1 bit": lambda: PIL.Image.fromarray(ids * 255).convert("1"),
                "grey as RGB": lambda: PIL.Image.fromarray(ids).convert("RGB")}
    modes = {"grey": "L", "palette": "P", "16 bits": "I;16", "1 bit": "1", "grey as RGB": "RGB"}
    with stored(pictures[how]()) as picture:
        assert picture.mode == modes[how]
        np.testing.assert_array_equal(ids_of(picture), ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "F", "PA"])
def test_colours_are_no_ids_however_they_are_stored(mode: str) -> None:
    colours = PIL.Image.fromarray(np.stack([np.arange(16, dtype=np.uint8).reshape(4, 4) * each for each in (1, 5, 9)], -1))
    picture = PIL.Image.merge("PA", (colours.convert("L"),) * 2) if mode == "PA" else colours.convert(
        "L").convert("F") if mode == "F" else PIL.Image.new("LAB", (4, 4)) if mode == "LAB" else colours.convert(mode)
    assert picture.mode == mode
    with pytest.raises(OSError, match=rf"it holds (colours \()?{mode}\)?; expected one (whole )?number per pixel"):
        ids_of(picture)


def test_a_palette_mask_keeps_its_set_of_ids_after_load_resize_and_augmentation(tmp_path: Path) -> None:
    task = SemanticSegmentation.understand(section(labels=list(NAMES)), data.load(section(train=folder(tmp_path)), seed=0))
    for augment in ("none", "light", "flips"):
        changed = SemanticSegmentation(task.problem, task.found, section(augment=augment, stride=1))
        split = data.load(section(train=folder(tmp_path)), seed=0)["train"]
        prepared = changed.prepare(split, processor(37), processor(37), training=True)
        for epoch in range(3):
            if prepared.on_epoch is not None:
                prepared.on_epoch(epoch)
            labels = prepared.collate(range(len(prepared))).labels
            assert labels is not None
            assert labels.shape == (6, 37, 37)
            assert set(labels.unique().tolist()) <= {0, 1, 2, NO_ANSWER}
            assert {0, 2} <= set(labels.unique().tolist())


def test_a_mask_is_changed_as_its_picture_is() -> None:
    """Of a picture whose red is 60 times its mask's id, the changed one's red says the changed mask's, but at borders."""
    ids = np.repeat(np.repeat(np.arange(12).reshape(3, 4) % 4, 16, 0), 16, 1).astype(np.uint8)
    picture = PIL.Image.fromarray(np.stack([60 * ids] * 3, -1))
    for seed in range(6):
        drawn_ = Change.drawn((0, seed), flips=True)
        change = Change(drawn_.box, drawn_.mirrored)
        seen = np.asarray(change.of_picture(picture))[..., 0].astype(float) / 60
        mask = change.of_mask(ids, ids.shape)
        assert (np.abs(seen - mask) < 0.3).mean() > 0.9
    assert {Change.drawn((0, seed), flips=True).mirrored for seed in range(9)} == {False, True}
    assert not any(Change.drawn((0, seed), flips=False).mirrored for seed in range(9))
    np.testing.assert_array_equal(Change().of_mask(ids, ids.shape), ids)


def test_reduced_labels_move_every_id_but_the_ignored_ones_down_and_leave_0_out() -> None:
    ids = Ids({0: 0, 1: 1, 2: 2}, frozenset({255}), reduced=True)
    np.testing.assert_array_equal(ids.encoded(np.array([[0, 1], [3, 255]], np.uint16)), [[NO_ANSWER, 0], [2, NO_ANSWER]])
    with pytest.raises(DataError, match="a mask holds 4, which no class is called by; known are 1, 2 and 3"):
        ids.encoded(np.array([[4]], np.uint16))


def test_classes_follow_the_models_order_and_not_the_ids() -> None:
    task = understood(rows(good(0)), labels={2: "road", 0: "sky", 1: "tree"})
    assert task.problem.names == ("road", "sky", "tree")
    np.testing.assert_array_equal(task._ids().encoded(np.array([[0, 1, 2, 255]], np.uint16)), [[1, 2, 0, NO_ANSWER]])


def test_packed_masks_come_back_as_they_were() -> None:
    values = np.array([[NO_ANSWER, 3], [300, 0]])
    np.testing.assert_array_equal(Packed.of(values).whole(), values)


@pytest.mark.parametrize(("masks", "said", "words"), [
    (lambda ids: png(ids[:-4]), {}, "1 of 4 pictures or masks cannot be used: row 0: its mask has 56 x 36 pixels and the"),
    (lambda ids: png(np.stack([ids, 2 * ids, ids], -1)), {}, r"row 0: its mask: it holds colours \(RGB\); expected one"),
    (lambda ids: None, {}, "row 0: there is no mask"),
    (lambda ids: b"no picture", {}, "row 0: its mask: not a picture"),
    (lambda ids: png(ids)[:60], {}, "row 0: its mask: "),
    (lambda ids: png(ids + 7), {}, r"ids that no class has: 6, 7, 8 and 9, in 1 of 4 masks \(row 0\); what is named is 0, 1"),
    (lambda ids: png(ids), {"labels": ["sky", "tree"]}, r"ids that no class has: 2, in 4 of 4 masks"),
    (lambda ids: png(ids), {"labels": ["sky", "sky", "road"]}, "two ids are called 'sky'"),
    (lambda ids: png(ids), {"labels": {0: "sky", 1: "a", 2: "b", 255: "c"}}, "255 has a name, and data.ignore says"),
    (lambda ids: png(ids), {"mask": "masks"}, "data.mask: got 'masks', which is no column"),
    (lambda ids: png(ids), {"id2label": "nowhere.json", "labels": None}, "data.id2label: 'nowhere.json': No such file"),
    (lambda ids: png(ids), {"id2label": "nowhere.json"}, "data.id2label says the names too"),
])
def test_mistakes_in_masks_are_named_and_counted(masks: Any, said: dict[str, Any], words: str) -> None:
    pairs: list[tuple[Any, Any]] = [*good(0)]
    pixels, ids = drawn(9)
    pairs[0] = (png(pixels), masks(ids))
    with pytest.raises(DataError, match=words):
        understood(rows(pairs), **said)


def test_a_jpeg_is_no_mask() -> None:
    with stored(PIL.Image.fromarray(drawn(0)[1]), "JPEG") as picture, pytest.raises(OSError, match="a JPEG changes numbers"):
        ids_of(picture)
    written = BytesIO()
    PIL.Image.fromarray(drawn(0)[1]).save(written, "TIFF", compression="jpeg")
    with PIL.Image.open(written) as picture, pytest.raises(OSError, match="a TIFF compressed as JPEG changes numbers"):
        ids_of(picture)
    PIL.Image.fromarray(drawn(0)[1]).save(written := BytesIO(), "TIFF", compression="tiff_lzw")
    with PIL.Image.open(written) as picture:
        np.testing.assert_array_equal(ids_of(picture), drawn(0)[1])


def test_what_cannot_be_used_is_left_out_if_the_recipe_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pairs: list[tuple[Any, Any]] = [*good(0)]
    pairs[1], pairs[2] = (pairs[1][0], None), (b"no picture", pairs[2][1])
    train = rows(pairs)
    with caplog.at_level(logging.WARNING):
        task = understood(train, broken="skip")
    assert "2 of 4 pictures or masks cannot be used; left out" in caplog.text
    prepared = task.prepare(train, processor(), None, training=True)
    assert prepared.keys.tolist() == [0, 3]


@pytest.mark.parametrize("labels", [None, ["tree"], ["background", "tree"]])
def test_masks_of_0_and_1_have_one_class_once_they_are_reduced(labels: list[str] | None) -> None:
    train = rows([(one, png((drawn(place)[1] == 1).astype(np.uint8))) for place, (one, _) in enumerate(good(0))])
    with pytest.raises(DataError, match=r"holds one class only, .* They also hold 0, which data.reduce_labels takes for no"):
        SemanticSegmentation.understand(section(labels=labels, reduce_labels=True), {"train": train})


def test_masks_of_0_and_255_are_asked_about_and_not_ignored_away() -> None:
    train = rows([(one, png(255 * (drawn(place)[1] == 1).astype(np.uint8))) for place, (one, _) in enumerate(good(0))])
    with pytest.raises(DataError, match=r"holds one class only, 0: .* They also hold 255, which data.ignore takes for no"):
        SemanticSegmentation.understand(section(labels=None), {"train": train})
    for labels in (["background", "tree"], {0: "background", 1: "tree"}):
        with pytest.raises(DataError, match=r"holds one class only, background: .* They also hold 255"):
            SemanticSegmentation.understand(section(labels=labels), {"train": train})
    task = SemanticSegmentation.understand(section(labels={0: "background", 255: "tree"}, ignore=[]), {"train": train})
    assert task.problem.names == ("background", "tree")


def test_columns_of_the_hub_are_found_by_their_names() -> None:
    pairs = good(0)
    for names in (("image", "annotation"), ("pixel_values", "label"), ("image", "labels"), ("image", "colours")):
        task = SemanticSegmentation.understand(section(), {"train": rows(pairs, names)})
        assert task.found is not None
        assert (task.found.image, task.found.mask) == names
    several = Dataset.from_dict({"image": [], "mask": [], "instances": []}, features=Features(dict.fromkeys(
        ("image", "mask", "instances"), Image())))
    assert mask_column(section(), several) == "mask"
    with pytest.raises(DataError, match="which column is the mask"):
        mask_column(section(), several.rename_columns({"mask": "one"}))


def test_names_come_from_a_file_beside_the_data_or_a_named_one(tmp_path: Path) -> None:
    place = folder(tmp_path / "d")
    splits = data.load(section(train=place), seed=0)
    unnamed = SemanticSegmentation.understand(section(train=place, labels=None), splits)
    assert (unnamed.problem.names, unnamed.problem.named) == (("0", "1", "2"), False)
    (tmp_path / "d" / "id2label.json").write_text(json.dumps({"0": "sky", "1": "tree", "2": "road"}))
    named = SemanticSegmentation.understand(section(train=place, labels=None), splits)
    assert named.problem.names == NAMES
    assert named.resolved(section(train=place, labels=None)).labels == dict(enumerate(NAMES))
    (tmp_path / "other.json").write_text(json.dumps(["a", "b", "c"]))
    said = SemanticSegmentation.understand(section(train=place, labels=None, id2label=str(tmp_path / "other.json")), splits)
    assert said.problem.names == ("a", "b", "c")


def test_a_split_without_any_labelled_pixel_is_refused() -> None:
    empty = rows([(png(drawn(one)[0]), png(np.full((40, 56), 255, np.uint8))) for one in range(2)])
    with pytest.raises(DataError, match=r"data.test: no pixel of any mask is of a class\. They also hold 255"):
        SemanticSegmentation.understand(section(), {"train": rows(good(0)), "test": empty})


def test_tables_need_no_folder(tmp_path: Path) -> None:
    splits = data.load(section(train=table(tmp_path / "t.parquet", 5)), seed=0)
    assert SemanticSegmentation.understand(section(), splits).problem.names == NAMES
