"""Detection: columns and their classes, canvases and original pixels, rows of every family, what is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Sequence, Value

from stilla import data
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Detections, Side
from stilla.tasks.answers import Answers
from stilla.tasks.vision import detectors
from stilla.tasks.vision.detection import Detection
from stilla.tasks.vision.detection_exam import packed
from stilla.tasks.vision.sections import DetectionData
from tests.tasks.vision.detecting import FAMILIES, NAMES, coco, folder, model

SIZES = ((40, 20), (20, 40))


def rows(category: Any = None, *, names: bool = False, plain: bool = False) -> Dataset:
    """Two pictures, of which the second has nothing in it."""
    kind = {True: ClassLabel(names=["a", "b", "c"]), False: Value("int64")}[names] if category is None else category
    inner = {"bbox": List(Value("float32")), "category": kind}
    objects = List(inner) if plain else Sequence(inner)
    image = [PIL.Image.new("RGB", size) for size in SIZES]
    there: Any = [{"bbox": [4, 2, 20, 10], "category": 1}, {"bbox": [0, 0, 4, 4], "category": 2}]
    values = [there, []] if plain else [{"bbox": [one["bbox"] for one in there], "category": [1, 2]},
                                        {"bbox": [], "category": []}]
    return Dataset.from_dict({"image": image, "objects": values}, Features({"image": Image(), "objects": objects}))


def section(**fields: Any) -> DetectionData:
    return DetectionData(train="x", **fields)


def task_of(folder_: Path, seed: int = 0, **options: Any) -> tuple[Detection, dict[str, Dataset]]:
    made = DetectionData(train=coco(folder_ / "data", seed=seed, **options), validation=coco(folder_ / "v", seed=seed + 1))
    splits = data.load(made, seed=0)
    return Detection.understand(made, splits), splits


@pytest.mark.parametrize("plain", [True, False], ids=["list of objects", "object of lists"])
@pytest.mark.parametrize("names", [True, False])
def test_objects_are_read_in_both_forms_and_classes_have_names(plain: bool, names: bool) -> None:
    split = rows(names=names, plain=plain)
    task = Detection.understand(section(), {"train": split})
    assert task.class_names() == (("a", "b", "c") if names else ("1", "2"))
    assert task.sizes == {*SIZES}
    assert task.resolved(section()).objects == "objects"


def test_numbers_get_the_names_that_the_recipe_says_and_text_its_own() -> None:
    assert Detection.understand(section(labels=["x", "y", "z"]), {"train": rows()}).class_names() == ("x", "y", "z")
    with pytest.raises(DataError, match="the classes 2, and there are 2 names"):
        Detection.understand(section(labels=["x", "y"]), {"train": rows()})


def test_classes_come_in_the_teachers_order_and_one_class_is_no_regression(tmp_path: Path) -> None:
    task, splits = task_of(tmp_path)
    names = ("triangle", "bird", "circle", "square")
    teacher = task.load(ModelSource(model=folder(tmp_path / "t", names=names)), labelled=True)
    adapted = task.adapted_to(teacher)
    assert adapted.class_names() == ("triangle", "bird", "circle", "square")
    batch = adapted.prepare(splits["train"], teacher.processor, None, training=True).collate([0, 1, 2, 3])
    said = [[adapted.class_names()[int(one)] for one in row if one >= 0] for row in batch.labels[..., 0]]  # type: ignore[index]
    assert said == [[one["category"] for one in row] for row in splits["train"]["objects"][:4]]
    with pytest.raises(CompatibilityError, match="does not know 3 of the data's 3 labels"):
        task.adapted_to(task.load(ModelSource(model=folder(tmp_path / "u", names=("a", "b", "c"))), labelled=True))
    single = Detection.understand(section(), {"train": rows(ClassLabel(names=["a", "b", "c"]))})
    one = replace(single, problem=replace(single.problem, names=("b",), raw=("1",)))
    made = one.load(ModelSource(model=folder(tmp_path / "o", names=("b",))), labelled=True)
    assert one.adapted_to(made).class_names() == ("b",)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["detr", "yolos"])
def test_targets_and_pixels_do_not_depend_on_the_neighbours(family: str, tmp_path: Path) -> None:
    task, splits = task_of(tmp_path)
    made = task.load(ModelSource(model=folder(tmp_path / "t", family)), labelled=True)
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    alone, beside = prepared.collate([0]), prepared.collate([1, 0])
    assert prepared.collate([1]).student["pixel_values"].shape[1:] == alone.student["pixel_values"].shape[1:]
    for name, value in alone.student.items():
        assert torch.equal(value[0], beside.student[name][1])
    many = alone.labels.shape[1]  # type: ignore[union-attr]
    assert torch.equal(alone.labels[0], beside.labels[1, :many])  # type: ignore[index]
    # a perfect answer comes back in the pixels of the file
    for batch, row in ((alone, 0), (beside, 1)):
        target = batch.labels[row]  # type: ignore[index]
        target = target[target[:, 0] >= 0]
        logits = torch.full((len(batch.keys_), len(target), 3), -20.0)  # type: ignore[arg-type]
        logits[row, torch.arange(len(target)), target[:, 0].long()] = 20.0
        found = Detections(logits, target[None, :, 1:].expand(len(logits), -1, -1))
        given = task.exam().given(packed(found), batch, None)[row]
        for one, there in zip(splits["train"][0]["objects"], given[given[:, 5] > 0.5][: len(target)], strict=True):
            left, top, width, height = one["bbox"]
            best = given[np.abs(given[:, :4] - [left, top, left + width, top + height]).max(1) < 1e-4]
            assert task.class_names()[int(best[0, 4])] == one["category"]
            assert there[5] > 0.99


def test_a_model_that_reads_no_mask_gets_no_pictures_of_several_sizes(tmp_path: Path) -> None:
    task, splits = task_of(tmp_path)
    made = task.load(ModelSource(model=folder(tmp_path / "t", "yolos", size=128, fixed=False)), labelled=True)
    with pytest.raises(CompatibilityError, match=r"reads no mask .* Set size to \{height, width\}"):
        task.prepare(splits["train"], made.processor, None, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_size_that_a_model_cannot_read_is_refused_in_words_and_no_other(family: str, tmp_path: Path) -> None:
    task, splits = task_of(tmp_path)
    made = model(family)
    for size in (48, 64, 72, 80, 100):
        folder_ = Path(folder(tmp_path / f"t{size}", family, size=size, fixed=True))
        loaded = task.load(ModelSource(model=str(folder_)), labelled=True)
        try:
            with torch.no_grad():
                made(pixel_values=torch.rand(1, 3, size, size))
        except RuntimeError:
            with pytest.raises(CompatibilityError, match=rf"pictures of {size} x {size} pixels, .* multiples of (32|16)"):
                task.prepare(splits["train"], loaded.processor, loaded.processor, training=True)
        else:
            assert len(task.prepare(splits["train"], loaded.processor, None, training=True).keys)


def _features(family: str, seed: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    made = detectors.of_one_group(model(family))
    for module in made.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    torch.manual_seed(seed)
    return made, {"pixel_values": torch.rand(2, 3, 64, 64)}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_training_has_as_many_guesses_as_ever_and_the_same(family: str) -> None:
    made, inputs = _features(family, 3)
    task = Detection.of_model(made)
    batch = Batch(student=inputs, teacher=inputs)
    found = {}
    for training in (False, True):
        made.train(training)
        for module in made.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        with torch.no_grad():
            said = task.signals(made(**inputs), batch, Side.STUDENT).detections
        assert said is not None
        assert said.logits.shape[:2] == said.boxes.shape[:2] == (2, 8)
        assert said.exclusive == (family in ("detr", "yolos"))
        found[training] = packed(said)
    torch.testing.assert_close(found[True], found[False], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "number"), [("rt-detr", 2), ("rt-detr-v2", 2), ("detr", 0)])
def test_what_earlier_layers_find_is_heard_of_students_alone(family: str, number: int) -> None:
    made, inputs = _features(family, 3)
    task, batch = Detection.of_model(made), Batch(student=inputs, teacher=inputs)
    made.train()
    said = [task.signals(made(**inputs), batch, side).detections for side in (Side.STUDENT, Side.TEACHER)]
    assert [len(one.earlier) for one in said if one] == [number, 0]
    assert all(one.boxes.min() >= 0 and one.boxes.max() <= 1 for one in said[0].earlier)  # type: ignore[union-attr]


def test_what_a_cache_keeps_is_what_the_teacher_said() -> None:
    torch.manual_seed(0)
    task = replace(Detection.of_model(model("yolos")), queries=8)
    made = model("yolos")
    inputs = {"pixel_values": torch.rand(3, 3, 48, 48)}
    batch = Batch(student=inputs, teacher=inputs)
    with torch.no_grad():
        live = task.signals(made(**inputs), batch, Side.TEACHER)
    kept = task.remembered(live, batch)
    assert isinstance(kept.logits, Dense)
    assert kept.logits.logits.shape == (3, task.teacher_classes()) == (3, 8 * 7)
    _, again = task.align(live, kept, batch)
    assert again.detections is not None
    assert live.detections is not None
    torch.testing.assert_close(again.detections.independent(), live.detections.independent())
    torch.testing.assert_close(again.detections.boxes, live.detections.boxes)


def _bad(tmp_path: Path, box: list[float]) -> str:
    file = Path(coco(tmp_path / "bad", 4))
    whole = json.loads(file.read_text())
    whole["annotations"] = [{"id": 1, "image_id": whole["images"][0]["id"], "category_id": 7, "bbox": box, "iscrowd": 0},
                            {"id": 2, "image_id": whole["images"][0]["id"], "category_id": 18, "bbox": [1, 1, 9, 9]}]
    file.write_text(json.dumps(whole))
    return str(file)


@pytest.mark.slow
@pytest.mark.parametrize(("box", "words"), [
    ([70.0, 5, 10, 10], "1 of 2 boxes lie outside of their picture"),
    ([10.0, 5, 0, 10], "1 of 2 boxes have no size"),
    ([10.0, 5, -4, 10], "1 of 2 boxes have no size"),
])
def test_boxes_that_are_none_are_named_and_can_be_left_out(box: list[float], words: str, tmp_path: Path) -> None:
    made = DetectionData(train=_bad(tmp_path, box), validation=coco(tmp_path / "v"))
    splits = data.load(made, seed=0)
    with pytest.raises(DataError, match=words) as error:
        Detection.understand(made, splits)
    assert "0.png" in str(error.value)
    skip = made.model_copy(update={"broken": "skip"})
    task = Detection.understand(skip, splits)
    processor = task.load(ModelSource(model=folder(tmp_path / "t")), labelled=True).processor
    batch = task.prepare(splits["train"], processor, None, training=True).collate([0])
    assert task.counts(batch)["objects"] == 2  # one box and one picture


def test_boxes_over_the_edge_are_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = DetectionData(train=_bad(tmp_path, [50.0, 5, 40, 10]), validation=coco(tmp_path / "v"))
    splits = data.load(made, seed=0)
    with caplog.at_level(logging.WARNING):
        task = Detection.understand(made, splits)
    assert "1 of 2 boxes reach over the edge of their picture" in caplog.text
    processor = task.load(ModelSource(model=folder(tmp_path / "t")), labelled=True).processor
    target = task.prepare(splits["train"], processor, None, training=True).collate([0]).labels[0, 0]  # type: ignore[index]
    assert (target[1] + target[3] / 2).item() == pytest.approx(1)


def _boxed(boxes: list[list[float]], size: tuple[int, int] = (40, 20)) -> Dataset:
    """A picture for each box, which has it alone."""
    objects = List({"bbox": List(Value("float64")), "category": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": [PIL.Image.new("RGB", size)] * len(boxes),
                              "objects": [[{"bbox": box, "category": 0}] for box in boxes]},
                             Features({"image": Image(), "objects": objects}))


@pytest.mark.parametrize("boxes", ["xywh", "xyxy"])
def test_boxes_that_are_shares_of_their_pictures_are_refused(boxes: Any) -> None:
    shares = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 0.9, 1.0]]
    with pytest.raises(DataError, match=r"data.train: no box reaches further than pixel .*, as shares of 0 to 1 do"):
        Detection.understand(section(boxes=boxes), {"train": _boxed(shares)})
    one_in_pixels = _boxed([*shares, [1, 1, 9, 9]])
    assert Detection.understand(section(boxes=boxes), {"train": one_in_pixels}).class_names() == ("a", "b")


def test_training_pictures_without_an_object_are_refused_whatever_others_hold() -> None:
    some = rows(names=True, plain=True)
    with pytest.raises(DataError, match=r"data.train: 'objects' holds no object in any of 1 pictures"):
        Detection.understand(section(), {"train": some.select([1]), "validation": some})
    assert Detection.understand(section(), {"train": some, "validation": some.select([1])}).class_names()


@pytest.mark.parametrize(("boxes", "hinted"), [
    ([[20, 5, 30, 15], [25, 10, 39, 19], [2, 2, 5, 5]], True), ([[20, 5, 30, 15], [2, 2, 5, 5], [2, 2, 5, 5]], False)])
def test_corners_that_are_read_as_sizes_are_hinted_at(
    boxes: list[list[float]], hinted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Detection.understand(section(), {"train": _boxed(boxes)})
    assert "over the edge of their picture: cut there" in caplog.text
    assert ("most of them: if the column holds left, top, right and bottom, set data.boxes: xyxy" in caplog.text) == hinted
    caplog.clear()
    Detection.understand(section(boxes="xyxy"), {"train": _boxed(boxes)})
    assert "xyxy" not in caplog.text


def _sized(folder_: Path, said: tuple[int, int], size: tuple[int, int], turned: int | None = None) -> DetectionData:
    """A file of COCO's that says a size of two pictures, which have this one."""
    file = Path(coco(folder_, 2, most=0))
    whole = json.loads(file.read_text())
    exif = PIL.Image.Exif()
    if turned is not None:
        exif[0x0112] = turned
    for number, one in enumerate(whole["images"]):
        PIL.Image.new("RGB", size).save(folder_ / f"{number}.jpg", exif=exif)
        one.update(file_name=f"{number}.jpg", width=said[0], height=said[1])
    whole["annotations"] = [{"id": 1, "image_id": whole["images"][0]["id"], "category_id": 7, "bbox": [2, 2, 20, 30]}]
    file.write_text(json.dumps(whole))
    return DetectionData(train=str(file))


@pytest.mark.parametrize(("said", "turned", "words"), [
    ((64, 48), 6, r"stored turned .* 0.jpg\): 48 x 64, said to be 64 x 48"), ((48, 64), 6, ""), ((64, 48), None, ""),
    ((0, 0), 6, "")])
def test_boxes_of_a_picture_as_it_is_stored_are_refused_where_it_is_turned(
    said: tuple[int, int], turned: int | None, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = _sized(tmp_path / "data", said, (64, 48), turned)
    splits = {"train": data.load(made.model_copy(update={"validation": made.train}), seed=0)["train"]}
    if words:
        with pytest.raises(DataError, match=words.replace(" 0.jpg", ".*0.jpg")):
            Detection.understand(made, splits)
    else:
        Detection.understand(made, splits)
        assert "another size" not in caplog.text


def test_pictures_of_another_size_than_the_data_say_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = _sized(tmp_path / "data", (128, 96), (64, 48))
    Detection.understand(made, {"train": data.load(made.model_copy(update={"validation": made.train}), seed=0)["train"]})
    assert "pictures have another size than the data say of them" in caplog.text
    assert "0.jpg): 64 x 48, said to be 128 x 96" in caplog.text


def _table(objects: list[Any], kind: Any = None, box: str = "bbox") -> Dataset:
    inner = Sequence({box: List(Value("float32")), "category": ClassLabel(names=["a", "b"]) if kind is None else kind})
    images = [PIL.Image.new("RGB", (40, 20))] * len(objects)
    return Dataset.from_dict({"image": images, "objects": objects}, Features({"image": Image(), "objects": inner}))


def test_lists_of_different_lengths_are_refused_and_not_cut() -> None:
    split = _table([{"bbox": [[1, 1, 9, 9], [2, 2, 9, 9]], "category": [0]}])
    with pytest.raises(DataError, match="a picture with 2 in 'bbox' and 1 in 'category'; expected one of each"):
        Detection.understand(section(), {"train": split})


@pytest.mark.parametrize(("kind", "box", "category", "words"), [
    (ClassLabel(names=["b", "a"]), "bbox", 0, "data.validation: 'category' numbers 'b' and 'a', and in other splits 'a' and"),
    (Value("string"), "bbox", "a", "data.validation: 'category' of 'objects' holds text, and in other splits 2 classes"),
    (None, "box", 0, "data.validation: the objects of 'objects' have no 'bbox', which they have elsewhere"),
])
def test_splits_of_other_forms_are_refused(kind: Any, box: str, category: Any, words: str) -> None:
    train = _table([{"bbox": [[1, 1, 9, 9]], "category": [0]}])
    other = _table([{box: [[1, 1, 9, 9]], "category": [category]}], kind, box)
    with pytest.raises(DataError, match=words):
        Detection.understand(section(), {"train": train, "validation": other})


def test_what_is_null_or_stands_there_twice_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    split = _table([None, {"bbox": [[1, 1, 9, 9], [1, 1, 9, 9]], "category": [0, 0]},
                    {"bbox": [[1, 1, 9, 9], [1, 1, 9, 9]], "category": [0, 1]}])
    Detection.understand(section(), {"train": split})
    assert "1 of 3 pictures have null in 'objects': read as pictures without objects" in caplog.text
    assert "1 pictures have the same box of the same class more than once, each to be found by itself: row 1" in caplog.text


def test_a_table_with_a_row_for_each_box_says_what_is_expected() -> None:
    split = rows().remove_columns("objects")
    for name in ("xmin", "ymin", "xmax", "ymax"):
        split = split.add_column(name, [1, 2])
    with pytest.raises(DataError, match="a table with a row for each box is not read: expected a row for each picture"):
        Detection.understand(section(), {"train": split})


def test_crowds_alone_are_nothing_to_learn(tmp_path: Path) -> None:
    file = Path(coco(tmp_path / "data", 4))
    whole = json.loads(file.read_text())
    for one in whole["annotations"]:
        one["iscrowd"] = 1
    file.write_text(json.dumps(whole))
    made = DetectionData(train=str(file), validation=str(file))
    with pytest.raises(DataError, match="so there is nothing to find"):
        Detection.understand(made, data.load(made, seed=0))


@pytest.mark.slow
def test_broken_pictures_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    made = DetectionData(train=coco(tmp_path / "t", 6), validation=coco(tmp_path / "v"))
    (tmp_path / "t/2.png").write_bytes(b"no picture")
    splits = data.load(made, seed=0)
    with pytest.raises(DataError, match="1 of 6 pictures cannot be read"):
        Detection.understand(made, splits)
    skip = made.model_copy(update={"broken": "skip"})
    task = Detection.understand(skip, splits)
    processor = task.load(ModelSource(model=folder(tmp_path / "m")), labelled=True).processor
    assert task.prepare(splits["train"], processor, None, training=True).keys.tolist() == [0, 1, 3, 4, 5]
    (tmp_path / "t/0.png").unlink()
    splits = data.load(made, seed=0)
    with pytest.raises(DataError, match=r"2 of 6 pictures cannot be read: row 0 .*0\.png\): there is no such file"):
        Detection.understand(made, splits)
    task = Detection.understand(skip, splits)
    assert task.prepare(splits["train"], processor, None, training=True).keys.tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(("change", "words"), [
    (lambda split: split.remove_columns("objects"), "which column holds the objects"),
    (lambda split: split.add_column("things", split.with_format(None)["objects"]).rename_column("objects", "others"),
     "'others' and 'things' could be it|'others' or 'things' could be it|could be it"),
    (lambda split: split.remove_columns("image"), "no column holds pictures"),
])
def test_columns_that_leave_it_open_are_asked_for(change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Detection.understand(section(), {"train": change(rows(names=True, plain=True))})


def test_other_models_than_those_of_transformers_are_refused(tmp_path: Path) -> None:
    task, _ = task_of(tmp_path)
    with pytest.raises(CompatibilityError, match="takes models of transformers"):
        task.load(ModelSource(model="tests.tasks.own_models:nothing"), labelled=True)


def test_a_backbone_of_timm_says_what_is_missing(tmp_path: Path) -> None:
    task, _ = task_of(tmp_path)
    place = Path(folder(tmp_path / "t", "detr", fixed=True))
    said = json.loads((place / "config.json").read_text())
    said.update(use_timm_backbone=True, backbone="resnet18", backbone_config=None)
    (place / "config.json").write_text(json.dumps(said))
    with pytest.raises(CompatibilityError, match="timm"):
        task.load(ModelSource(model=str(place)), labelled=True)


def test_every_object_is_decided_by_the_surest_that_overlaps_it() -> None:
    exam = replace(Detection.of_model(model("yolos")).exam(), names=NAMES)
    there = np.array([[0, 0, 10, 10, 0, 0], [20, 20, 40, 40, 1, 0], [50, 50, 60, 60, 2, 1]], float)
    found = np.array([[0, 0, 10, 9, 2, 0.9], [0, 0, 10, 10, 0, 0.8], [50, 50, 60, 60, 2, 0.7]])
    decided = exam.decisions(Answers(np.array([4]), [found], [there]))
    assert decided.decided.tolist() == ["triangle", "nothing"]
    assert decided.references.tolist() == ["circle", "square"]
    assert decided.place.tolist() == [0, 1]
    by_class = exam.by_class(Answers(np.array([4]), [found], [there]))
    assert by_class.support.tolist() == [1, 1, 0]
    assert by_class.values.tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_a_person_is_shown_the_object_and_what_lies_near_it() -> None:
    task = Detection.of_model(model("yolos"))
    exam = replace(task.exam(), names=NAMES, shown=lambda split, key: ("data:image/png;base64,AA==", 100, 50))
    there = np.array([[0, 0, 10, 10, 0, 0], [40, 20, 60, 40, 1, 0]], float)
    found = np.array([[0, 0, 10, 9, 2, 0.9], [40, 20, 61, 40, 0, 0.8], [90, 40, 130, 60, 0, 0.5], [1, 1, 9, 9, 1, 0.1]])
    said = Answers(np.array([4]), [found], [there])
    view = exam.view(rows(), {"student": said}, 0, 1)
    assert [(one.label, one.by) for one in view.boxes] == [
        ("", ""), ("square?", ""), ("", "student"), ("circle 0.80", "student"), ("", "student")]
    assert (view.boxes[4].left, view.boxes[4].right, view.boxes[1].top) == (0.9, 1.0, 0.4)
    assert view.ratio == 2
