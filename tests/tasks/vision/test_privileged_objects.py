"""Teachers of boxes and masks that see other pictures than their students: larger, sharper, of another camera."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

import stilla
from stilla.errors import DataError
from stilla.recipe import ModelSource
from stilla.signals import Dense, Side
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.forward import listen
from stilla.tasks.vision.detection import Detection
from stilla.tasks.vision.image_segmentation import ImageSegmentation
from stilla.tasks.vision.object_task import ObjectTask
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.sections import DetectionData
from stilla.tasks.vision.segmentation_section import ImageSegmentationData
from tests.tasks.vision import detecting, segmenting

SHARP = {"image": ("sharp",)}
SIZE = (48, 64)  # height and width


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    written = BytesIO()
    PIL.Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def _twice(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return pixels.repeat(2, 0).repeat(2, 1)


def boxes(count: int = 4, *, seed: int = 0) -> Dataset:
    """Pictures with boxes, and the same at twice the size."""
    draw = np.random.default_rng(seed)
    made = [detecting.picture(draw, SIZE[1], SIZE[0]) for _ in range(count)]
    made[0][1].append({"bbox": [0.0, 0.0, 8.0, 8.0], "category": "circle"})
    pictures = [np.asarray(one) for one, _ in made]
    objects = List({"bbox": List(Value("float32")), "category": Value("string")})
    return Dataset.from_dict({"image": _stored(pictures), "sharp": _stored([_twice(one) for one in pictures]),
                              "objects": [found for _, found in made]},
                             features=Features({"image": Image(), "sharp": Image(), "objects": objects}))


def masks(count: int = 4, *, seed: int = 0) -> Dataset:
    made = [segmenting.drawn(3 * (seed + number), size=SIZE) for number in range(count)]
    pictures = [pixels for pixels, _ in made]
    return Dataset.from_dict(
        {"image": _stored(pictures), "sharp": _stored([_twice(one) for one in pictures]),
         "instances": _stored([segmenting.numbered(objects, SIZE) for _, objects in made])},
        features=Features({name: Image() for name in ("image", "sharp", "instances")}))


def _stored(several: list[np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
    return [{"bytes": png(one), "path": None} for one in several]


def _detection(split: Dataset, **said: Any) -> ObjectTask[Any]:
    return Detection.understand(DetectionData(train="x", image="image", boxes="xywh", **said), {"train": split})


def _segmentation(split: Dataset, **said: Any) -> ObjectTask[Any]:
    return ImageSegmentation.understand(ImageSegmentationData(train="x", image="image", masks="instances", **said),
                                        {"train": split})


KINDS: dict[str, tuple[Any, Any]] = {"boxes": (boxes, _detection), "masks": (masks, _segmentation)}
of_both = pytest.mark.parametrize("kind", KINDS)


def task_of(kind: str, split: Dataset | None = None, **said: Any) -> tuple[ObjectTask[Any], Dataset]:
    data, made = KINDS[kind]
    split = data() if split is None else split
    return made(split, **said).taught_from(SHARP, {"train": split}), split


def model_of(kind: str, task: ObjectTask[Any], place: Path, size: int = 64, family: str = "") -> Loaded:
    """Of a processor to this size, or of DETR's kind, which keeps shapes."""
    if kind == "boxes":
        made = detecting.folder(place, family or "yolos", size=size, **({} if family else {"image_size": [size, size]}))
    else:
        made = segmenting.folder(place, "mask2former", size=size, names=task.class_names())
    return task.load(ModelSource(model=made), labelled=True)


def prepared(task: ObjectTask[Any], kind: str, split: Dataset, student: Loaded, teacher: Loaded | None = None) -> Prepared:
    own, theirs = (None if one is None else one.processor for one in (student, teacher))
    return task.prepare(split, own, theirs, training=True)


@pytest.mark.slow
@of_both
def test_a_teacher_sees_its_own_picture_of_the_same_things_which_stay_where_they_are(kind: str, tmp_path: Path) -> None:
    task, split = task_of(kind)
    student, teacher = (model_of(kind, task, tmp_path / str(size), size) for size in (64, 128))
    task = task.adapted_to(teacher)
    both = prepared(task, kind, split, student, teacher)
    batch = both.collate(range(4))
    assert not both.aligned
    assert batch.student["pixel_values"].shape[-2:] == (64, 64)
    assert batch.teacher["pixel_values"].shape[-2:] == (128, 128)
    coarse = torch.nn.functional.avg_pool2d(batch.teacher["pixel_values"], 8)
    seen = torch.nn.functional.avg_pool2d(batch.student["pixel_values"], 4)
    torch.testing.assert_close(coarse, seen, atol=0.2, rtol=0)
    alone = prepared(task.of_teacher(), kind, split, teacher)
    asked = alone.collate(range(4))
    torch.testing.assert_close(asked.student["pixel_values"], batch.teacher["pixel_values"])
    # what is there is told in the student's pixels, and in shares of both
    torch.testing.assert_close(asked.labels, batch.labels, equal_nan=True)
    assert asked["sizes"].tolist() == batch["sizes"].tolist()
    without = KINDS[kind][1](split).adapted_to(teacher)
    torch.testing.assert_close(prepared(without, kind, split, student, teacher).collate(range(4)).labels, batch.labels,
                               equal_nan=True)


@pytest.mark.slow
def test_pictures_of_every_size_lie_on_canvases_of_their_own_column(tmp_path: Path) -> None:
    """Where a processor keeps shapes, a teacher's canvas is as large as its own pictures are, in whatever split."""
    task, split = task_of("boxes")
    made = model_of("boxes", task, tmp_path / "m", family="detr", size=1024)
    few = split.select([0, 1])
    tall = few.select([0]).map(lambda row: {"sharp": PIL.Image.new("RGB", (64, 96))})
    both = KINDS["boxes"][1](split).taught_from(SHARP, {"train": split, "validation": tall})
    batch = prepared(both, "boxes", few, made, made).collate([0, 1])
    heights = [one["pixel_values"].shape[-2:] for one in (batch.student, batch.teacher)]
    assert heights[0][0] < heights[0][1]
    assert heights[1][0] > heights[1][1]  # the tall one's, of another split
    assert batch.teacher["pixel_mask"].sum() < batch.teacher["pixel_mask"].numel()
    assert batch.student["pixel_mask"].all()


@pytest.mark.slow
@of_both
def test_a_teacher_that_is_the_student_has_nothing_to_teach_where_both_see_the_same(kind: str, tmp_path: Path) -> None:
    _, split = task_of(kind)
    same = split.remove_columns(["sharp"]).add_column("sharp", split.cast_column("image", Image(decode=False))["image"][:],
                                                      feature=Image())
    task, _ = task_of(kind, same)
    made = model_of(kind, task, tmp_path / "m")
    task = task.adapted_to(made)
    batch = prepared(task, kind, same, made, made).collate(range(4))
    assert batch.teacher is not batch.student
    with torch.no_grad():
        ours, theirs = (listen(made.model.eval(), task, batch, side) for side in (Side.STUDENT, Side.TEACHER))
    (_, told) = task.align(ours, task.remembered(theirs, batch), batch)  # live and stored
    for one in (theirs, told):
        mine, yours = ((said.detections or said.segments) for said in (ours, one))
        assert mine is not None
        assert yours is not None
        torch.testing.assert_close(mine.independent(), yours.independent())
    assert isinstance(task.remembered(theirs, batch).logits, Dense)


@pytest.mark.slow
@of_both
def test_who_is_asked_alone_reads_no_picture_of_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, split = task_of(kind)
    made = model_of(kind, task, tmp_path / "m")
    opened: list[str] = []
    rgb = Pictures.rgb
    monkeypatch.setattr(Pictures, "rgb", lambda own, row: opened.append(own.column) or rgb(own, row))
    for one, column in ((task, "image"), (task.of_teacher(), "sharp")):
        opened.clear()
        prepared(one, kind, split, made).collate(range(4))
        assert set(opened) == {column}


@pytest.mark.slow
@of_both
def test_pictures_that_one_of_both_cannot_see_are_refused_or_left_out_for_both(kind: str, tmp_path: Path) -> None:
    split = KINDS[kind][0]()
    stored = split.cast_column("sharp", Image(decode=False))["sharp"][:]
    stored[1] = {"bytes": b"no picture", "path": None}
    bad = split.remove_columns(["sharp"]).add_column("sharp", stored, feature=Image())
    with pytest.raises(DataError, match=r"data\.train: 1 of 4 pictures cannot be read: row 1: not a picture"):
        task_of(kind, bad)
    task, _ = task_of(kind, bad, broken="skip")
    made = model_of(kind, task, tmp_path / "m")
    for one, teacher in ((task, made), (task, None), (task.of_teacher(), None)):
        assert prepared(one, kind, bad, made, teacher).keys.tolist() == [0, 2, 3]
    assert len(task.usable(bad)) == 3


@of_both
def test_pictures_of_another_shape_are_named_as_places_would_lie_elsewhere(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    split = KINDS[kind][0]()
    sharp = [PIL.Image.new("RGB", size) for size in ((128, 96), (96, 96), (127, 95), (33, 24))]  # one is no resized picture
    other = split.remove_columns(["sharp"]).add_column("sharp", _stored([np.asarray(one) for one in sharp]), feature=Image())
    task, _ = task_of(kind, other)
    words = r"1 of 4 pictures are of another shape .* \(teacher\.data: sharp\), first row 1: 64 x 48 and 96 x 96 pixels"
    assert re.search(rf"data\.train: {words}", caplog.text)
    caplog.clear()
    task.usable(other)
    assert re.search(rf"data\.unlabelled: {words}", caplog.text)
    caplog.clear()
    task_of(kind)
    assert "another shape" not in caplog.text


@of_both
def test_what_no_teacher_of_objects_can_see_is_refused(kind: str) -> None:
    task, split = task_of(kind)
    answer = task.columns[0]
    for told, words in (({"image": (answer,)}, f"{answer!r} is the label"), ({"image": ("sharper",)}, "Did you mean sharp"),
                        ({"text": ("sharp",)}, "got 'text'; expected image"),
                        ({"image": ("image", "sharp")}, "got 2 columns of pictures")):
        with pytest.raises(DataError, match=words):
            task.taught_from(told, {"train": split})
    plain = task.taught_from({"image": ("image",)}, {"train": split})
    assert plain.teachers == ""
    assert plain.of_teacher() is plain


@of_both
def test_unlabelled_pictures_need_both_columns(kind: str) -> None:
    task, split = task_of(kind)
    assert set(task.beside(split).column_names) == {"image", "sharp", *task.columns}
    assert task.unlabelled(split, {}).column_names == ["image", "sharp"]
    with pytest.raises(DataError, match="which column is 'sharp'"):
        task.unlabelled(split.remove_columns(["sharp"]), {})


@pytest.mark.slow
@of_both
def test_a_run_whose_teacher_learns_and_answers_by_larger_pictures(kind: str, tmp_path: Path) -> None:
    for name, count, seed in (("train", 8, 0), ("validation", 4, 50), ("more", 4, 80)):
        KINDS[kind][0](count, seed=seed).to_parquet(tmp_path / f"{name}.parquet")
    task, _ = task_of(kind, KINDS[kind][0](8))
    for size, place in ((128, "teacher"), (64, "student")):
        model_of(kind, task, tmp_path / place, size)
    extra = {"boxes": "xywh"} if kind == "boxes" else {"masks": "instances"}
    run = stilla.distill(
        None, task=task.kind, output=str(tmp_path / "run"), allow_weak_teacher=True, data={
            "train": str(tmp_path / "train.parquet"), "validation": str(tmp_path / "validation.parquet"), "image": "image",
            "unlabelled": str(tmp_path / "more.parquet"), **extra},
        teacher={"model": str(tmp_path / "teacher"), "data": {"image": "sharp"}, "train": {"max_steps": 1, "batch_size": 4}},
        cache="dense", student={"model": str(tmp_path / "student")},
        distill={"max_steps": 2, "batch_size": 4, "precision": "float32"}, evaluate={"resamples": 100, "speed": False})
    assert {"labelled", "unlabelled"} <= run.scores.learnt.keys()
    assert run.scores.examples["validation"] == 4
    assert run.report.is_file()
