"""Boxes in the forms that people have them in: COCO's, VOC's, YOLO's; and what is wrong with some."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from datasets import Image

from stilla.data.sources import read
from stilla.errors import DataError

BOXES = [[[4.0, 2.0, 10.0, 6.0], [0.0, 0.0, 8.0, 8.0]], [], [[1.0, 1.0, 30.0, 20.0]]]
KINDS = [["cat", "dog"], [], ["dog"]]
SIZE = (40, 24)


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(len(BOXES)):
        PIL.Image.new("RGB", SIZE, (number, 50, 90)).save(folder / f"p{number}.png")


def _coco(where: Path) -> dict[str, Any]:
    ids = {"dog": 18, "cat": 3}
    return {"info": {}, "categories": [{"id": number, "name": name} for name, number in ids.items()],
            "images": [{"id": 10 * number, "file_name": f"p{number}.png"} for number in range(len(BOXES))],
            "annotations": [{"id": 5, "image_id": 10 * number, "category_id": ids[kind], "bbox": box, "iscrowd": 0}
                            for number, (boxes, kinds) in enumerate(zip(BOXES, KINDS)) for box, kind in zip(boxes, kinds)]}


def coco_file(path: Path) -> Path:
    pictures(path)
    (path / "all.json").write_text(json.dumps(_coco(path)))
    return path / "all.json"


def coco_layout(path: Path) -> Path:
    pictures(path / "train2017")
    (path / "annotations").mkdir()
    (path / "annotations" / "instances_train2017.json").write_text(json.dumps(_coco(path), indent=1))
    return path


def coco_by_split(path: Path) -> Path:
    pictures(path / "train")
    (path / "train" / "_annotations.coco.json").write_text(json.dumps(_coco(path)))
    return path


def _xml(number: int) -> str:
    """VOC counts pixels from 1, and the last is in the box."""
    objects = "".join(
        f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for (x, y, w, h), kind in zip(BOXES[number], KINDS[number]))
    return f"<annotation><filename>p{number}.png</filename>{objects}</annotation>"


def voc_layout(path: Path) -> Path:
    pictures(path / "JPEGImages")
    (path / "Annotations").mkdir()
    for number in range(len(BOXES)):
        (path / "Annotations" / f"p{number}.xml").write_text(_xml(number))
    (path / "ImageSets" / "Main").mkdir(parents=True)
    (path / "ImageSets" / "Main" / "train.txt").write_text("p0\np1\np2\n")
    return path


def voc_beside(path: Path) -> Path:
    pictures(path / "train")
    for number in range(len(BOXES)):
        (path / "train" / f"p{number}.xml").write_text(_xml(number))
    return path


def _yolo(number: int) -> str:
    width, height = SIZE
    order = ["cat", "dog"]
    return "".join(f"{order.index(kind)} {(x + w / 2) / width:.9f} {(y + h / 2) / height:.9f} {w / width:.9f} "
                   f"{h / height:.9f}\n" for (x, y, w, h), kind in zip(BOXES[number], KINDS[number]))


def yolo(path: Path, images: str = "images/train", labels: str = "labels/train") -> Path:
    pictures(path / images)
    (path / labels).mkdir(parents=True)
    for number in (0, 2):
        (path / labels / f"p{number}.txt").write_text(_yolo(number))
    (path / "data.yaml").write_text("train: images/train\nnames: {0: cat, 1: dog}\n")
    return path


def yolo_by_split(path: Path) -> Path:
    return yolo(path, "train/images", "train/labels")


@pytest.mark.parametrize("make", [coco_file, coco_layout, coco_by_split, voc_layout, voc_beside, yolo, yolo_by_split])
def test_every_form_says_the_same(make: Callable[[Path], Path], tmp_path: Path) -> None:
    splits = read(str(make(tmp_path / "data")), hub=False)
    assert list(splits) == ["train"]
    rows = splits["train"]
    assert [[one["category"] for one in row] for row in rows["objects"]] == KINDS
    for row, expected in zip(rows["objects"], BOXES):
        for one, box in zip(row, expected):
            assert one["bbox"] == pytest.approx(box, abs=1e-6)
            assert one["crowd"] is False
    assert [rows[place]["image"].getpixel((0, 0))[0] for place in range(3)] == [0, 1, 2]


def test_splits_are_those_of_the_folders(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        pictures(tmp_path / split)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(_coco(tmp_path)))
    assert {name: len(split) for name, split in read(str(tmp_path), hub=False).items()} == {
        "train": 3, "validation": 3, "test": 3}


def test_crowds_and_difficult_objects_are_marked(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "coco")
    whole = json.loads(file.read_text())
    whole["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(whole))
    folder = voc_beside(tmp_path / "voc")
    first = folder / "train" / "p0.xml"
    first.write_text(first.read_text().replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1))
    for name in (file, folder):
        assert [one["crowd"] for one in read(str(name), hub=False)["train"]["objects"][0]] == [True, False]


def test_a_picture_of_voc_that_is_lost_keeps_its_row_until_it_is_back(tmp_path: Path) -> None:
    folder = voc_beside(tmp_path / "voc")
    lost = folder / "train" / "p1.png"
    bytes_of = lost.read_bytes()
    lost.unlink()

    def there() -> list[bool]:
        rows = read(str(folder), hub=False)["train"].cast_column("image", Image(decode=False))
        return [Path(one["path"]).is_file() for one in rows["image"]]

    assert there().count(False) == 1
    lost.write_bytes(bytes_of)
    assert all(there())


def _changed(path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    file = coco_file(path)
    whole = json.loads(file.read_text())
    change(whole)
    file.write_text(json.dumps(whole))
    return str(file)


@pytest.mark.parametrize(("change", "words"), [
    (lambda whole: whole["annotations"][0].update(category_id=99),
     "1 of 3 annotations have a category_id that none .* has: 99"),
    (lambda whole: whole["annotations"][0].update(image_id=99), "1 of 3 annotations have a image_id that none .* has: 99"),
    (lambda whole: whole["images"].append(dict(whole["images"][0])), "1 ids of a image stand there more than once: 0"),
    (lambda whole: whole["annotations"][0].pop("bbox"), "there is no 'bbox'"),
    (lambda whole: whole.pop("categories"), "is no file of boxes in COCO's form: there is no 'categories'"),
    (lambda whole: whole.pop("images"), "is no file of boxes in COCO's form: there is no 'images'"),
    (lambda whole: [one.update(file_name=f"lost{one['id']}.png") for one in whole["images"]], "which is no picture in"),
    (lambda whole: whole["images"][1].update(file_name="/etc/hostname"), "lies outside of"),
])
def test_what_is_wrong_with_a_file_of_coco_is_named(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        read(_changed(tmp_path / "data", change), hub=False)


def test_captions_beside_boxes_are_no_boxes(tmp_path: Path) -> None:
    folder = coco_layout(tmp_path / "data")
    said = {"images": _coco(folder)["images"], "annotations": [{"id": 1, "image_id": 0, "caption": "a cat"}]}
    (folder / "annotations" / "captions_train2017.json").write_text(json.dumps(said))
    assert read(str(folder), hub=False).keys() == {"train"}


@pytest.mark.parametrize(("line", "words"), [
    ("0 0.1 0.2 0.3\n", "expected a class and four numbers"),
    ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "no polygons"),
    ("7 0.1 0.2 0.3 0.4\n", "class 7 has no name; there are 2"),
    ("cat 0.1 0.2 0.3 0.4\n", "line 1: got"),
    ("0 nan 0.2 0.3 0.4\n", "four numbers"),
])
def test_what_is_wrong_with_a_line_of_yolo_is_named(line: str, words: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "data")
    (folder / "labels/train/p0.txt").write_text(line)
    with pytest.raises(DataError, match=words):
        read(str(folder), hub=False)


def test_yolo_without_names_asks_for_them_and_takes_a_plain_list(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "data")
    (folder / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"expected a data\.yaml with `names`, or a classes\.txt"):
        read(str(folder), hub=False)
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert read(str(folder), hub=False)["train"]["objects"][2][0]["category"] == "dog"


@pytest.mark.parametrize(("text", "words"), [
    ("<annotation><object><name>cat</name></object></annotation>", "no name or no bndbox"),
    ("<annotation>", "no annotation in VOC's form"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
    (_xml(0).replace("<xmin>5.0</xmin>", "<xmin>left</xmin>"), "xmin is 'left', which is no number"),
])
def test_what_is_wrong_with_an_annotation_of_voc_is_named(text: str, words: str, tmp_path: Path) -> None:
    folder = voc_beside(tmp_path / "data")
    (folder / "train/p0.xml").write_text(text)
    with pytest.raises(DataError, match=words):
        read(str(folder), hub=False)


@pytest.mark.parametrize("named", [
    "train: images/a\nval: images/b\n", "path: ../mine\ntrain: ../images/a\nval: [../images/b]\n",
    "train: a.txt\nval: b.txt\n"], ids=["folders", "neighbours", "lists"])
def test_yolos_splits_are_those_that_its_file_names(named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    for split, shade in (("a", 0), ("b", 1), ("c", 2)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        PIL.Image.new("RGB", SIZE, (shade, 0, 0)).save(folder / "images" / split / "p.png")
        (folder / "labels" / split / "p.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        (folder / f"{split}.txt").write_text(f"./images/{split}/p.png\n")
    (folder / "data.yaml").write_text(f"{named}names: [cat]\n")
    with caplog.at_level(logging.WARNING):
        splits = read(str(folder), hub=False)
    assert {name: [one.getpixel((0, 0))[0] for one in split["image"]] for name, split in splits.items()} == {
        "train": [0], "validation": [1]}
    assert all(len(split["objects"][0]) == 1 for split in splits.values())
    assert "1 pictures are in no split: left out" in caplog.text


def test_yolos_file_of_another_place_says_so_and_the_same_pictures_are_no_second_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = yolo(tmp_path / "data")
    (folder / "data.yaml").write_text("train: /elsewhere/images\nnames: [cat, dog]\n")
    assert len(read(str(folder), hub=False)["train"]) == 3
    assert "names '/elsewhere/images' as train, and no pictures are there" in caplog.text
    (folder / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    assert {name: len(split) for name, split in read(str(folder), hub=False).items()} == {"train": 3}
    assert "names the same pictures as validation" in caplog.text


def test_pictures_of_yolo_without_any_labels_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = yolo(tmp_path / "data")
    pictures(folder / "images" / "val")
    pictures(folder / "shown")
    assert {name: len(split) for name, split in read(str(folder), hub=False).items()} == {"train": 3}
    assert "3 pictures are in no split: left out" in caplog.text
    assert "none of the 3 pictures of validation has a file of labels: left out" in caplog.text


def test_yolos_labels_may_lie_beside_pictures_and_captions_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    pictures(folder / "train")
    for number in (0, 2):
        (folder / "train" / f"p{number}.txt").write_text(_yolo(number))
    (folder / "obj.names").write_text("cat\ndog\n")
    rows = read(str(folder), hub=False)["train"]
    assert [[one["category"] for one in row] for row in rows["objects"]] == KINDS
    (folder / "train" / "p0.txt").write_text("a cat beside 1 2 3 4\n")
    assert all("objects" not in split.column_names for split in read(str(folder), hub=False).values())


def test_an_empty_line_in_a_list_of_names_has_a_number_too(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "data")
    (folder / "data.yaml").unlink()
    (folder / "labels" / "classes.txt").write_text("cat\n\ndog\n")
    (folder / "labels/train/p0.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    (folder / "labels/train/p2.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert [[one["category"] for one in row] for row in read(str(folder), hub=False)["train"]["objects"]] == [
        ["dog"], [], ["cat"]]
    (folder / "data.yaml").write_text("names: {a: cat}\n")
    with pytest.raises(DataError, match="`names` has 'a' where a class's number is expected"):
        read(str(folder), hub=False)


def test_shares_are_of_the_picture_that_lies_there_now(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "data")
    before = read(str(folder), hub=False)["train"]["objects"][2][0]["bbox"]
    PIL.Image.new("RGB", (2 * SIZE[0], SIZE[1])).save(folder / "images/train/p2.png")
    left, top, width, height = read(str(folder), hub=False)["train"]["objects"][2][0]["bbox"]
    assert [left / 2, top, width / 2, height] == pytest.approx(before)


def _shades(folder: Path) -> dict[str, list[Any]]:
    return {name: [one.convert("RGB").getpixel((0, 0))[:2] for one in split["image"]]
            for name, split in read(str(folder), hub=False).items()}


def test_a_picture_of_voc_is_no_mask_of_its_name(tmp_path: Path) -> None:
    folder = voc_layout(tmp_path / "data")
    for place in ("SegmentationClass", "SegmentationObject", "Depth"):
        (folder / place).mkdir()
        for number in range(3):
            PIL.Image.new("RGB", SIZE, (200, 200, 200)).save(folder / place / f"p{number}.png")
    assert _shades(folder) == {"train": [(0, 50), (1, 50), (2, 50)]}
    for number in range(3):  # as where a tool has changed the pictures' form
        file = folder / "Annotations" / f"p{number}.xml"
        file.write_text(file.read_text().replace(".png</filename>", "</filename>"))
    assert _shades(folder) == {"train": [(0, 50), (1, 50), (2, 50)]}
    (folder / "JPEGImages").rename(folder / "Colour")
    with pytest.raises(DataError, match="are called so; expected one picture for an annotation"):
        read(str(folder), hub=False)


@pytest.mark.parametrize(("images", "annotations"), [("JPEGImages", "Annotations"), ("images", "annotations")])
def test_pictures_of_voc_of_the_same_names_are_told_apart_by_their_folders(
    images: str, annotations: str, tmp_path: Path
) -> None:
    for split, shade in (("train", 10), ("val", 90)):
        for place in (images, annotations):
            (tmp_path / place / split).mkdir(parents=True)
        PIL.Image.new("RGB", SIZE, (shade, 0, 0)).save(tmp_path / images / split / "p0.png")
        (tmp_path / annotations / split / "p0.xml").write_text(_xml(0))
    assert _shades(tmp_path) == {"train": [(10, 0)], "validation": [(90, 0)]}


def test_vocs_list_of_both_is_for_training_where_there_is_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = voc_layout(tmp_path / "data")
    lists = folder / "ImageSets" / "Main"
    for place, ending in (("JPEGImages", "png"), ("Annotations", "xml")):
        (folder / place / f"p2.{ending}").rename(folder / place / f"p 2.{ending}")
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "trainval.txt").write_text("p0\np1 1\n")
    (lists / "test.txt").write_text("p 2\n")
    PIL.Image.new("RGB", SIZE).save(folder / "JPEGImages" / "more.png")
    assert {name: len(split) for name, split in read(str(folder), hub=False).items()} == {"train": 2, "test": 1}
    assert "1 pictures, beside 2 others, have no annotation: left out" in caplog.text


def test_not_difficult_is_said_in_many_words(tmp_path: Path) -> None:
    folder = voc_beside(tmp_path / "data")
    first = folder / "train" / "p0.xml"
    first.write_text(first.read_text().replace("<difficult>0<", "<difficult>False<", 1).replace(
        "<difficult>0<", "<difficult>True<", 1))
    assert [one["crowd"] for one in read(str(folder), hub=False)["train"]["objects"][0]] == [False, True]


def test_coco_of_windows_is_read(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "data")
    (tmp_path / "data" / "images").mkdir()
    for picture in (tmp_path / "data").glob("*.png"):
        picture.rename(tmp_path / "data" / "images" / picture.name)
    text = file.read_text().replace('"file_name": "', '"file_name": "images\\\\')
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [one.getpixel((0, 0))[0] for one in read(str(file), hub=False)["train"]["image"]] == [0, 1, 2]


def test_a_changed_label_is_read_anew(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "data")
    assert len(read(str(folder), hub=False)["train"]["objects"][0]) == 2
    (folder / "labels/train/p0.txt").write_text(_yolo(2))
    assert len(read(str(folder), hub=False)["train"]["objects"][0]) == 1
