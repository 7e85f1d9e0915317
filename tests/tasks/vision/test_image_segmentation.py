"""Image segmentation: from pictures and masks to sets of objects, what models of every family say, and how it is judged."""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, List
from transformers import Mask2FormerImageProcessorPil

from stilla import data
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Segments, Side
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.tasks.vision import segment_models
from stilla.tasks.vision.image_segmentation import ImageSegmentation
from stilla.tasks.vision.mask_sets import packed, unpacked
from stilla.tasks.vision.object_masks import covered
from stilla.tasks.vision.segmentation_section import ImageSegmentationData
from tests.tasks.vision.scenes import segformer
from tests.tasks.vision.segmenting import (
    FAMILIES,
    NAMES,
    SIZE,
    by_object,
    coco,
    drawn,
    folder,
    model,
    numbered,
    png,
    processor,
    table,
)


def bound(train: str, **said: Any) -> tuple[ImageSegmentation, Dataset]:
    section = ImageSegmentationData(train=train, **said)
    split = data.sources.read(train)["train"]
    return ImageSegmentation.understand(section, {"train": split}), split


def batch_of(task: ImageSegmentation, split: Dataset, **how: Any) -> Batch:
    prepared = task.prepare(split, processor(), None, training=True, **how)
    return prepared.collate(range(len(prepared)))


def targets(batch: Batch, place: int) -> list[tuple[int, np.ndarray[Any, Any]]]:
    labels = batch.labels
    assert labels is not None
    there = labels[place][labels[place, :, 0] >= 0].numpy()
    return [(int(one[0]), one[1:].reshape(batch["grid"])) for one in there]


# --- data ---


def test_polygons_and_runs_become_shares_of_places(tmp_path: Path) -> None:
    task, split = bound(coco(tmp_path, 5))
    assert task.problem.names == tuple(sorted(NAMES))
    batch = batch_of(task, split)
    assert batch["grid"] == (8, 8)
    assert batch["sizes"].tolist() == [list(SIZE)] * 5
    for place in range(5):
        expected = drawn(place)[1]
        found = targets(batch, place)
        assert [NAMES[kind] for kind, _ in found] == [name for name, _ in expected]
        for (_, shares), (_, mask) in zip(found, expected):
            by_hand = mask.reshape(8, 5, 8, 6).mean((1, 3))
            np.testing.assert_allclose(shares, by_hand, atol=1 / 255)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["numbers", "several", "folder"])
def test_masks_without_classes_are_objects_of_one(tmp_path: Path, form: str) -> None:
    made = by_object(tmp_path / "f", 4) if form == "folder" else table(tmp_path / "t.parquet", 4, several=form == "several")
    task, split = bound(made, labels=["cell"])
    assert task.problem.names == ("cell",)
    prepared = task.prepare(split, processor(), None, training=True)
    batch, references = prepared.collate(range(4)), prepared.references
    assert references is not None
    for place in range(4):
        masks = [mask for _, mask in drawn(place)[1]]
        found = unpacked(references[place])
        assert sorted(one.tobytes() for one in found) == sorted(one.tobytes() for one in masks)
        assert len(targets(batch, place)) == len(masks)
    counts = sum(len(drawn(place)[1]) for place in range(4))
    assert task.counts(batch) == {"rows": 4, "labelled": 4, "tokens": 4, "examples": 4, "segments": counts + 4}


def test_objects_in_columns_are_read_as_data_sets_of_the_hub_have_them(tmp_path: Path) -> None:
    pixels, objects = drawn(0)
    square = [[2.0, 2.0, 20.0, 2.0, 20.0, 20.0, 2.0, 20.0]]
    Dataset.from_dict({"image": [png(pixels)] * 2, "objects": [
        {"segmentation": [square], "category": ["cat"]}, {"segmentation": [square, square], "category": ["dog", "cat"]},
    ]}).to_parquet(tmp_path / "t.parquet")
    task, split = bound(str(tmp_path / "t.parquet"), image="image")
    assert task.problem.names == ("cat", "dog")
    found = targets(batch_of(task, split), 1)
    assert [kind for kind, _ in found] == [1, 0]
    assert found[0][1].sum() == pytest.approx(18 * 18 / 30, rel=1e-2)
    assert objects


def test_crowds_are_measured_by_and_not_learnt(tmp_path: Path) -> None:
    path = Path(coco(tmp_path, 3))
    whole = json.loads(path.read_text())
    first = next(one for one in whole["annotations"] if one["image_id"] == 100)
    first["iscrowd"] = 1
    path.write_text(json.dumps(whole))
    task, split = bound(str(path))
    prepared = task.prepare(split, processor(), None, training=True)
    assert prepared.references is not None
    numbers = prepared.references[0]["numbers"]
    assert numbers[:, 1].sum() == 1
    assert len(targets(prepared.collate([0]), 0)) == len(numbers) - 1


@pytest.mark.slow
@pytest.mark.parametrize(("change", "words"), [
    ({"segmentation": [[1, 1, 4, 1]]}, r"1 of \d+ masks cannot be used: .*0.png\): it is .*expected polygons"),
    ({"segmentation": {"size": [9, 9], "counts": [81]}}, "runs are of 9 x 9 pixels, the picture has 48 x 40"),
    ({"segmentation": [[90, 90, 99, 90, 99, 99]]}, "covers nothing of its picture"),
    ({"segmentation": []}, "expected polygons"),
])
def test_masks_that_are_none_are_named_and_left_out_if_asked_for(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = Path(coco(tmp_path, 3))
    whole = json.loads(path.read_text())
    whole["annotations"][0].update(change)
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=words):
        bound(str(path))
    task, split = bound(str(path), broken="skip")
    assert len(targets(batch_of(task, split), 0)) == len(drawn(0)[1]) - 1


def test_outlines_of_a_picture_as_it_is_stored_are_refused_where_it_is_turned(tmp_path: Path) -> None:
    path = Path(coco(tmp_path, 3))
    whole = json.loads(path.read_text())
    first, exif = whole["images"][0], PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (60, 40)).save(path.parent / first["file_name"], exif=exif)
    first.update(width=60, height=40)
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"stored turned .* 40 x 60, said to be 60 x 40"):
        bound(str(path))


def test_numbers_of_another_size_and_empty_masks_are_refused(tmp_path: Path) -> None:
    pixels, objects = drawn(0)
    small = PIL.Image.fromarray(numbered(objects)).resize((10, 10), PIL.Image.Resampling.NEAREST)
    Dataset.from_dict({"image": [png(pixels)] * 2, "instances": [png(numbered(objects)), png(np.asarray(small))]}
                      ).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="its mask has 10 x 10 pixels and the picture 48 x 40"):
        bound(str(tmp_path / "a.parquet"), image="image")
    task, split = bound(str(tmp_path / "a.parquet"), image="image", broken="skip")
    assert task.prepare(split, processor(), None, training=True).keys.tolist() == [0]
    nothing = np.zeros(SIZE, np.uint8)
    Dataset.from_dict({"image": [png(pixels)], "instances": [png(nothing)]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="there is no object in any picture"):
        bound(str(tmp_path / "b.parquet"), image="image")
    Dataset.from_dict({"image": [png(pixels)], "masks": [[png(nothing)]]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="a mask is empty"):
        bound(str(tmp_path / "c.parquet"), image="image")


@pytest.mark.parametrize(("bad", "words"), [
    (png(np.full((10, 10), 255, np.uint8)), "a mask has 10 x 10 pixels and the picture 48 x 40"),
    ({"bytes": b"no picture", "path": None}, "a mask cannot be read: not a picture$"),
    (png(np.zeros(SIZE, np.uint8)), "a mask is empty"),
])
def test_of_lists_of_masks_one_that_is_none_is_left_out_and_the_others_stay(
    tmp_path: Path, bad: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels, objects = drawn(0)
    masks = [png(mask.astype(np.uint8)) for _, mask in objects]
    file = str(tmp_path / "t.parquet")
    Dataset.from_dict({"image": [png(pixels)], "masks": [[bad, *masks]]},
                      features=Features({"image": Image(), "masks": List(Image())})).to_parquet(file)
    task, split = bound(file, image="image", broken="skip")
    assert re.search(words, caplog.messages[-1])
    prepared = task.prepare(split, processor(), None, training=True)
    assert prepared.references is not None
    assert len(targets(prepared.collate([0]), 0)) == len(prepared.references[0]["masks"]) == len(masks)


@pytest.mark.parametrize(("said", "words"), [
    ({"labels": ["a", "b"]}, "say nothing of classes: expected one name"), ({"masks": "image2"}, "image2"),
    ({"objects": "instances"}, "expected objects with segmentation"),
    ({"objects": "instances", "masks": "instances"}, "keep one of them"),
])
def test_columns_that_leave_it_open_are_refused(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        bound(table(tmp_path / "t.parquet", 3), **said)


def test_a_picture_is_the_same_whatever_stands_beside_it_and_whoever_has_no_label_teaches_nothing(tmp_path: Path) -> None:
    task, split = bound(coco(tmp_path, 6))
    prepared = task.prepare(split, processor(), None, training=True)
    whole, alone = prepared.collate(range(6)), prepared.collate([4])
    torch.testing.assert_close(whole.student["pixel_values"][4:5], alone.student["pixel_values"])
    for (kind, shares), (other, same) in zip(targets(whole, 4), targets(alone, 0), strict=True):
        assert kind == other
        np.testing.assert_array_equal(shares, same)
    pool = task.unlabelled(split.select_columns(["image"]), {})
    bare = task.prepare(pool, processor(), None, training=True)
    labels = bare.collate([0, 1]).labels
    assert labels is not None
    assert labels[:, 0, 0].isnan().all()
    assert task.counts(bare.collate([0, 1]))["segments"] == 0
    assert bare.references is not None
    assert bare.references[0]["size"] == (0, 0)


# --- models ---


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_masks_on_the_grid_and_takes_gradients(family: str, tmp_path: Path) -> None:
    task, split = bound(coco(tmp_path / "d", 2), labels=[*NAMES])
    one = task.load(ModelSource(model=folder(tmp_path / "m", family, names=("x", "y", "z"))), labelled=False)
    batch = batch_of(task, split)
    one.model.train()
    with task.learning(one.model):
        said = listen(one.model, task, batch, Side.STUDENT).segments
    assert said is not None
    assert said.masks.shape == (2, 6, 8, 8)
    assert said.logits.shape == (2, 6, 4)
    assert len(said.earlier) == {"mask2former": 2, "maskformer": 0, "eomt": 0}[family]
    assert listen(one.model, task, batch, Side.STUDENT).segments.earlier == ()  # type: ignore[union-attr]
    assert segment_models.queries_of(one.model) == 6
    (said.masks.square().mean() + said.logits.square().mean()).backward()
    assert any(float(weight.grad.abs().max()) > 0 for weight in one.model.parameters() if weight.grad is not None)


@pytest.mark.slow
def test_a_model_of_one_class_is_read_again_from_its_folder(tmp_path: Path) -> None:
    task, _ = bound(table(tmp_path / "t.parquet", 3), labels=["cell"])
    made = task.load(ModelSource(model=folder(tmp_path / "m")), labelled=False).model
    made.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    again = task.load(ModelSource(model=str(tmp_path / "saved"), processor=str(tmp_path / "m")), labelled=True).model
    assert again.config.id2label == {0: "cell"}  # type: ignore[union-attr]


def test_what_is_stored_of_a_teacher_is_what_it_said(tmp_path: Path) -> None:
    task, split = bound(coco(tmp_path, 3))
    teacher = Loaded(model("eomt"), processor(), "teacher")
    task = task.adapted_to(teacher)
    assert task.grid == (8, 8)
    assert task.teacher_classes() == 6 * (3 + 64)
    batch = batch_of(task, split)
    with torch.no_grad():
        said = listen(teacher.model, task, batch, Side.TEACHER)
    kept = task.remembered(said, batch)
    assert isinstance(kept.logits, Dense)
    assert kept.logits.logits.shape == (3, task.teacher_classes())
    _, again = task.align(said, kept, batch)
    assert again.segments is not None
    assert said.segments is not None
    torch.testing.assert_close(again.segments.masks, said.segments.masks)
    torch.testing.assert_close(again.segments.independent(), said.segments.independent())
    assert len({one.content for one in task.segments(batch)}) == 3


@pytest.mark.slow
def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    task, _ = bound(coco(tmp_path / "d", 2))
    with pytest.raises(CompatibilityError, match="is a segformer; image-segmentation takes MaskFormer, Mask2Former and EoMT"):
        task.load(ModelSource(model=str(segformer(tmp_path / "m"))), labelled=False)
    with pytest.raises(CompatibilityError, match="needs a model that gives `class_queries_logits`"):
        segment_models.segments({"logits": torch.zeros(1)}, 3)


# --- answers ---


def _said(seed: int = 0) -> Segments:
    torch.manual_seed(seed)
    return Segments(torch.randn(1, 6, 4) * 2, torch.randn(1, 6, 8, 8).cumsum(-1))


def test_all_that_is_found_fits_one_tensor() -> None:
    for width in (2, 3, 8):
        said = Segments(torch.randn(2, 5, 4), torch.randn(2, 5, 7, width))
        again = segment_models.unpacked(segment_models.packed(said), 3)
        torch.testing.assert_close(again.masks, said.masks)
        torch.testing.assert_close(again.logits.sigmoid(), said.logits.softmax(-1)[..., :-1])


def test_masks_and_scores_are_those_of_transformers_own_post_processing(tmp_path: Path) -> None:
    task, _ = bound(coco(tmp_path, 2))
    said = _said()
    exam = task.exam()
    (found,) = exam.given(segment_models.packed(said), Batch(student={}, teacher={}, sizes=torch.tensor([[384, 384]])), None)
    outputs = type("Outputs", (), {"class_queries_logits": said.logits, "masks_queries_logits": said.masks})()
    (theirs,) = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        outputs, threshold=0.0, target_sizes=[(384, 384)], return_binary_maps=True)
    ours = {(int(kind), round(score, 4)): mask for (kind, score), mask in zip(found["numbers"], unpacked(found))}
    assert len(theirs["segments_info"]) >= 4  # of (query, class), the six likeliest that have a pixel
    for info, mask in zip(theirs["segments_info"], theirs["segmentation"]):
        mine = ours[info["label_id"], round(info["score"], 4)]
        assert (mine != mask.numpy().astype(bool)).mean() < 1e-3


def test_average_precision_of_masks_is_that_of_pycocotools(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle")
    from pycocotools import mask as runs
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = Path(coco(tmp_path, 8))
    whole = json.loads(path.read_text())
    whole["annotations"][1]["iscrowd"] = 1
    for one in whole["annotations"]:
        one["area"] = 2000  # of middle size: none is left out of `all`
    path.write_text(json.dumps(whole))
    task, split = bound(str(path))
    exam, references = task.exam(), task.prepare(split, processor(), None, training=False).references
    assert references is not None
    draw = np.random.default_rng(0)
    given, results = [], []
    ids = {one["name"]: one["id"] for one in whole["categories"]}
    for place in range(8):
        masks = [np.roll(mask, draw.integers(-3, 4, 2), (0, 1)) for mask in unpacked(references[place])]
        masks += [np.roll(mask, 9, 1) for mask in masks[:1]]
        numbers = np.array([[draw.integers(0, 3) if draw.random() < 0.2 else kind, draw.random()] for kind in
                            [*references[place]["numbers"][:, 0], 0][: len(masks)]]).reshape(-1, 2)
        order = np.argsort(-numbers[:, 1], kind="stable")
        stacked = np.stack(masks)[order] if masks else np.zeros((0, *SIZE), bool)
        given.append(packed(numbers[order], stacked))
        for (kind, score), mask in zip(numbers[order], stacked):
            results.append({"image_id": 100 + 3 * place, "category_id": ids[task.problem.names[int(kind)]],
                            "score": float(score), "segmentation": runs.encode(np.asfortranarray(mask.astype(np.uint8)))})
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = COCO(str(path))
        theirs = COCOeval(truth, truth.loadRes(results), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    values = {metric.name: metric.compute(given, references) for metric in exam.metrics()}
    assert 0.05 < values["map"] < 0.95
    assert [values["map"], values["map_50"], values["map_75"]] == pytest.approx(theirs.stats[:3], abs=1e-12)


def test_shares_of_places_are_means_of_pixels() -> None:
    mask = np.zeros((1, 6, 4), bool)
    mask[0, :2, :3] = True
    np.testing.assert_array_equal(covered(mask, (3, 2)), [[255, 128, 0, 0, 0, 0]])
    np.testing.assert_array_equal(covered(np.ones((1, 5, 7), bool), (3, 4)), np.full((1, 12), 255))
    assert covered(np.zeros((0, 5, 7), bool), (3, 4)).shape == (0, 12)
