"""Teachers that see other pictures than their students: of the same scene, sharper, larger or cleaner."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value

import stilla
from stilla.errors import DataError
from stilla.signals import Dense, Side
from stilla.tasks.forward import listen
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.sections import ImageClassificationData
from stilla.tasks.vision.segmentation import SemanticSegmentation
from tests.tasks.tiny import image_processor
from tests.tasks.vision.scenes import NAMES, drawn, loaded, png, processor, section, segformer

SHARP = {"image": ("sharp",)}


def blurred(pixels: np.ndarray[Any, Any]) -> bytes:
    height, width = pixels.shape[:2]
    small = PIL.Image.fromarray(pixels).resize((width // 4, height // 4))
    written = BytesIO()
    small.resize((width, height)).save(written, "PNG")
    return written.getvalue()


def streets(count: int = 4, sharp: Any = None, first: int = 0, **said: Any) -> tuple[SemanticSegmentation, Dataset]:
    """Pictures with masks, and the same at twice the size, which only a teacher sees."""
    made = [drawn(first + number) for number in range(count)]
    large = [png(pixels.repeat(2, 0).repeat(2, 1)) for pixels, _ in made]
    rows = {"image": [blurred(pixels) for pixels, _ in made], "sharp": large if sharp is None else sharp(large),
            "mask": [png(ids) for _, ids in made]}
    split = Dataset.from_dict({name: [one and {"bytes": one, "path": None} for one in some] for name, some in rows.items()},
                              features=Features({name: Image() for name in rows}))
    asked = section(image="image", **said)
    return SemanticSegmentation.understand(asked, {"train": split}).taught_from(SHARP, {"train": split}), split


@pytest.mark.parametrize("augment", ["none", "flips"])
def test_a_teacher_of_pixels_sees_the_same_part_of_its_own_picture(augment: str) -> None:
    task, split = streets(augment=augment)
    prepared = task.prepare(split, processor(32), processor(64), training=True, seed=3)
    batch = prepared.collate(range(4))
    assert not prepared.aligned
    assert batch.teacher["pixel_values"].shape[-2:] == (64, 64)
    coarse = torch.nn.functional.avg_pool2d(batch.teacher["pixel_values"], 8)
    seen = torch.nn.functional.avg_pool2d(batch.student["pixel_values"], 4)
    near = torch.nn.functional.cosine_similarity(coarse.flatten(1), seen.flatten(1))
    assert (near > 0.97).all()  # the same place of the same scene
    assert not torch.allclose(coarse, seen, atol=0.05)  # and another picture of it


def test_a_teacher_asked_by_itself_sees_its_own_pictures_and_answers_for_the_masks_size() -> None:
    task, split = streets()
    both = task.prepare(split, processor(32), processor(32), training=True).collate(range(4))
    alone = task.of_teacher().prepare(split, processor(32), None, training=False)
    batch = alone.collate(range(4))
    torch.testing.assert_close(batch.student["pixel_values"], both.teacher["pixel_values"])
    assert batch["sizes"].tolist() == [[40, 56]] * 4  # of the masks, not of the larger pictures
    assert alone.references is not None
    assert alone.references[0].shape == (40, 56)


def test_who_is_asked_alone_reads_no_picture_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = streets()
    opened: list[str] = []
    rgb = Pictures.rgb
    monkeypatch.setattr(Pictures, "rgb", lambda own, row: opened.append(own.column) or rgb(own, row))
    for one, column in ((task, "image"), (task.of_teacher(), "sharp")):
        opened.clear()
        one.prepare(split, processor(32), None, training=False).collate(range(4))
        assert set(opened) == {column}


def test_a_teacher_that_is_the_student_has_nothing_to_teach_where_both_see_the_same(tmp_path: Path) -> None:
    task, split = streets()
    same = Dataset.from_dict({name: split.cast_column(name, Image(decode=False))[name][:] for name in ("image", "mask")}
                             | {"sharp": split.cast_column("image", Image(decode=False))["image"][:]},
                             features=split.features)
    made = loaded(task, segformer(tmp_path / "m"))
    batch = task.prepare(same, made.processor, made.processor, training=True).collate(range(4))
    with torch.no_grad():
        ours, theirs = (listen(made.model.eval(), task, batch, side) for side in (Side.STUDENT, Side.TEACHER))
    assert isinstance(ours.logits, Dense)
    assert isinstance(theirs.logits, Dense)
    torch.testing.assert_close(ours.logits.logits, theirs.logits.logits)


def test_pictures_that_one_of_both_cannot_see_are_refused_or_left_out_for_both() -> None:
    def broken(large: list[bytes]) -> list[Any]:
        return [large[0], b"no picture", *large[2:]]

    with pytest.raises(DataError, match=r"data\.train: 1 of 4 pictures cannot be read: row 1: not a picture"):
        streets(sharp=broken)
    task, split = streets(sharp=broken, broken="skip")
    for one, teacher in ((task, processor(32)), (task, None), (task.of_teacher(), None)):
        assert one.prepare(split, processor(16), teacher, training=True).keys.tolist() == [0, 2, 3]


def test_classes_of_pictures_leave_out_for_both_what_one_of_both_cannot_see() -> None:
    some = [{"bytes": png(drawn(number)[0]), "path": None} for number in range(4)]
    split = Dataset.from_dict(
        {"image": [*some[:3], {"bytes": b"x", "path": None}], "sharp": [some[0], {"bytes": b"x", "path": None}, *some[2:]],
         "label": ["a", "b", "a", "b"]},
        features=Features({"image": Image(), "sharp": Image(), "label": Value("string")}))
    asked = ImageClassificationData.model_validate({"train": "x", "image": "image", "broken": "skip"})
    task = ImageClassification.understand(asked, {"train": split}).taught_from(SHARP, {"train": split})
    for one, teacher in ((task, image_processor(8)), (task, None), (task.of_teacher(), None)):
        assert one.prepare(split, image_processor(8), teacher, training=True).keys.tolist() == [0, 2]
    assert len(task.usable(split)) == 2


@pytest.mark.parametrize(("told", "words"), [
    ({"image": ("mask",)}, "'mask' is the label"),
    ({"image": ("sharper",)}, "there is no column 'sharper'.*Did you mean sharp"),
    ({"text": ("sharp",)}, "got 'text'; expected image"), ({"image": ("image", "sharp")}, "got 2 columns of pictures")])
def test_what_no_teacher_of_pixels_can_see_is_refused(told: Any, words: str) -> None:
    task, split = streets()
    with pytest.raises(DataError, match=words):
        task.taught_from(told, {"train": split})
    assert task.taught_from({"image": ("image",)}, {"train": split}).teachers == ""


def test_unlabelled_scenes_need_both_pictures() -> None:
    task, split = streets()
    assert set(task.beside(split).column_names) == {"image", "sharp", "mask"}
    assert task.unlabelled(split, {}).column_names == ["image", "sharp"]
    with pytest.raises(DataError, match="which column is 'sharp'"):
        task.unlabelled(split.remove_columns(["sharp"]), {})


@pytest.mark.slow
def test_a_run_whose_teacher_learns_and_answers_by_larger_pictures(tmp_path: Path) -> None:
    for name, count, first in (("train", 8, 0), ("validation", 4, 50), ("more", 4, 80)):
        streets(count, first=first)[1].to_parquet(tmp_path / f"{name}.parquet")
    run = stilla.distill(
        None, task="semantic-segmentation", output=str(tmp_path / "run"), allow_weak_teacher=True, data={
            "train": str(tmp_path / "train.parquet"), "validation": str(tmp_path / "validation.parquet"), "image": "image",
            "mask": "mask", "labels": list(NAMES), "unlabelled": str(tmp_path / "more.parquet")},
        teacher={"model": str(segformer(tmp_path / "teacher", size=64, std=0.2)), "data": {"image": "sharp"},
                 "train": {"max_steps": 1, "batch_size": 4}}, cache="dense",
        student={"model": str(segformer(tmp_path / "student", depths=[1, 1, 1, 1]))},
        distill={"max_steps": 2, "batch_size": 4, "precision": "float32"}, evaluate={"resamples": 100, "speed": False})
    assert run.scores.learnt.keys() == {"labelled", "unlabelled"}
    assert run.scores.examples["validation"] == 4
    assert run.report.is_file()
