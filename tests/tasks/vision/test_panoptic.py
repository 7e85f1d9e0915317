"""Panoptic segmentation: pictures in segments, from COCO's form and others, what models say of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from numpy.typing import NDArray
from transformers import Mask2FormerImageProcessorPil

from stilla import data
from stilla.errors import DataError
from stilla.signals import Batch, Segments
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded
from stilla.tasks.vision import segment_models, segment_programs
from stilla.tasks.vision.panoptic_data import segment_ids
from stilla.tasks.vision.panoptic_exam import PanopticExam, parts
from stilla.tasks.vision.parted import Parted
from tests.tasks.vision.segmenting import (
    NAMES,
    SIZE,
    STUFF,
    coco,
    drawn,
    model,
    panoptic,
    png,
    processor,
    segments,
    table,
)
from tests.tasks.vision.test_image_segmentation import batch_of, bound, targets

NOBODY = -100


def references(made: tuple[Any, Dataset]) -> Any:
    task, split = made
    return task.prepare(split, processor(), None, training=False).references


def masks_of(one: Parted) -> list[NDArray[np.bool_]]:
    return [one["places"].whole() == place for place in range(len(one["numbers"]))]


# --- data ---


def test_colours_are_ids_of_segments_with_classes(tmp_path: Path) -> None:
    file = panoptic(tmp_path, 4)
    assert {name: len(split) for name, split in data.sources.read(str(tmp_path)).items()} == {"validation": 4}
    task, split = bound(file)
    names = task.problem.names
    assert names == tuple(sorted((*NAMES, *STUFF)))
    assert task.panoptic is not None
    assert task.panoptic.names(task.problem) == STUFF
    assert (task.panoptic.threshold, task.panoptic.overlap) == (0.8, 0.8)
    right, batch = references((task, split)), batch_of(task, split)
    for place in range(4):
        expected = {(name, mask.tobytes()) for name, mask in segments(place)[1]}
        found = right[place]
        assert {(names[int(kind)], mask.tobytes()) for (kind, _), mask in zip(found["numbers"], masks_of(found))} == expected
        assert (found["places"].whole()[-1] == NOBODY).all()
        learnt = targets(batch, place)
        assert sorted(names[kind] for kind, _ in learnt) == sorted(name for name, _ in expected)
        assert sum(shares for _, shares in learnt).max() <= 1 + 2 / 255  # a pixel is of one segment, up to rounding
    assert task.counts(batch)["segments"] == sum(len(segments(place)[1]) for place in range(4)) + 4


def test_ids_have_three_colours_and_other_pngs_are_refused() -> None:
    colours = np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)
    assert segment_ids(PIL.Image.fromarray(colours)).tolist() == [[1 + 2 * 256 + 3 * 65536, 2**24 - 1]]
    assert segment_ids(PIL.Image.fromarray(np.array([[7, 70_000]], np.int32))).tolist() == [[7, 70_000]]
    with pytest.raises(OSError, match="it holds P; expected colours"):
        segment_ids(PIL.Image.fromarray(colours).convert("P"))


def test_a_table_of_the_hub_with_segments_is_read_as_the_file_is(tmp_path: Path) -> None:
    whole = json.loads(Path(panoptic(tmp_path / "c", 3)).read_text())
    infos = [[{"id": one["id"], "category_id": one["category_id"]} for one in row["segments_info"]]
             for row in whole["annotations"]]
    pixels = [png(segments(place)[0]) for place in range(3)]
    pngs = [{"bytes": (tmp_path / f"c/annotations/panoptic_val/{place}.png").read_bytes(), "path": None}
            for place in range(3)]
    file = str(tmp_path / "t.parquet")
    Dataset.from_dict({"image": pixels, "label": pngs, "segments_info": infos}, features=Features({
        "image": Image(), "label": Image(), "segments_info": List({"id": Value("int64"), "category_id": Value("int64")})})
        ).to_parquet(file)
    with pytest.raises(DataError, match=r"data.stuff: 'segments_info' holds the segments .* Name them in data.stuff"):
        bound(file)
    grass, sky = (str(one["id"]) for one in whole["categories"][-2:])
    given = references(bound(file, stuff=[grass, sky]))
    told = references(bound(str(tmp_path / "c/annotations/panoptic_val.json")))
    for one, other in zip(given, told, strict=True):
        np.testing.assert_array_equal([mask.sum() for mask in masks_of(one)], [mask.sum() for mask in masks_of(other)])
    with pytest.raises(DataError, match=r"data.stuff: got '99'; expected 3, 10"):
        bound(file, stuff=["99"])


@pytest.mark.parametrize("several", [False, True])
def test_of_masks_without_classes_the_rest_is_stuff(tmp_path: Path, several: bool) -> None:
    task, split = bound(table(tmp_path / "t.parquet", 4, several=several), image="image", labels=["cell"], stuff=["ground"])
    assert task.problem.names == ("cell", "ground")
    for place, found in enumerate(references((task, split))):
        masks = [mask for _, mask in drawn(place)[1]]
        assert sorted(found["numbers"][:, 0]) == [0] * len(masks) + [1]
        assert (found["places"].whole() != NOBODY).all()
        (rest,) = (mask for (kind, _), mask in zip(found["numbers"], masks_of(found)) if kind == 1)
        np.testing.assert_array_equal(rest, ~np.any(masks or [np.zeros(SIZE, bool)], 0))
    settled = task.resolved(task.section)
    assert (settled.stuff, settled.threshold, settled.overlap) == (("ground",), 0.8, 0.8)
    assert "stuff, threshold, overlap = [1], 0.8, 0.8" in task.reading
    with pytest.raises(DataError, match="expected one name, for all that is no cell"):
        bound(str(tmp_path / "t.parquet"), image="image", labels=["cell"], stuff=["ground", "sky"])


def test_of_objects_with_classes_those_of_stuff_are_one_segment_and_lie_behind_things(tmp_path: Path) -> None:
    file = str(tmp_path / "t.parquet")
    left, right, small = ([[x, 0.0, x + w, 0.0, x + w, 40.0, x, 40.0]] for x, w in ((0.0, 20.0), (24.0, 24.0), (10.0, 20.0)))
    several = {"segmentation": [left, right, small], "category": ["road", "road", "car"]}
    Dataset.from_dict({"image": [png(drawn(0)[0])], "objects": [several]}).to_parquet(file)
    (found,) = references(bound(file, image="image", stuff=["road"]))
    assert found["numbers"].tolist() == [[0, 0], [1, 0]]  # car, road
    car, road = masks_of(found)
    assert np.flatnonzero(car[0]).tolist() == list(range(10, 30))
    assert np.flatnonzero(road[0]).tolist() == [*range(10), *range(30, 48)]
    assert references(bound(file, image="image"))[0].keys() == {"numbers", "masks", "size"}  # without stuff: instances


def test_masks_of_things_that_overlap_are_refused_or_what_both_claim_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[0, :, :20], masks[1, :, 18:] = 255, 255
    file = str(tmp_path / "t.parquet")
    Dataset.from_dict({"image": [png(drawn(0)[0])], "masks": [[png(one) for one in masks]]},
                      features=Features({"image": Image(), "masks": List(Image())})).to_parquet(file)
    with pytest.raises(DataError, match=r"in 1 of 1 pictures masks of things .* overlap.*row 0: 80 pixels"):
        bound(file, image="image", stuff=[])
    (found,) = references(bound(file, image="image", stuff=["rest"], broken="skip"))
    assert "80 pixels" in caplog.messages[-1]
    assert np.unique(found["places"].whole()[:, 18:20]).tolist() == [NOBODY]
    assert found["numbers"].tolist() == [[0, 0], [0, 0]]  # and the rest has none of them


def _first(whole: dict[str, Any]) -> dict[str, Any]:
    return whole["annotations"][0]["segments_info"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("change", "words"), [
    (lambda whole: _first(whole).update(id=5),
     r"2 of \d+ masks cannot be used: row 0 .*no pixel has the id 5 of a segment; .*\d+ pixels have the id 197121, which"),
    (lambda whole: _first(whole).update(id=0), "a segment has the id 0, which is no segment's"),
    (lambda whole: whole["annotations"][0]["segments_info"].append(dict(_first(whole))), "two segments have the id 197121"),
    (lambda whole: _first(whole).update(category_id=99), r"1 of \d+ segments or annotations have a category_id that none"),
    (lambda whole: whole["annotations"][0].update(image_id=99), "have a image_id that none of its images has: 99"),
    (lambda whole: whole["annotations"][1].update(image_id=50), "two annotations are of the picture '0.png'"),
    (lambda whole: whole["annotations"].pop(), "1 of 3 pictures or masks cannot be used: row 2 .*there is no mask"),
    (lambda whole: whole.pop("categories"), "no file in COCO's panoptic form: there is no 'categories'"),
    (lambda whole: whole["annotations"][0].pop("file_name"), "no file in COCO's panoptic form: there is no 'file_name'"),
    (lambda whole: [one.update(file_name="lost.png") for one in whole["annotations"]], "which is no picture in"),
    (lambda whole: whole["annotations"][0].update(file_name="../../val/0.png"), "2 of|masks cannot be used|no segment has"),
    (lambda whole: [one.pop("isthing") for one in whole["categories"]], "no 'isthing' says which classes are stuff"),
    (lambda whole: whole["categories"][0].pop("isthing"), "some segments say whether they are things"),
])
def test_what_is_wrong_with_a_panoptic_file_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        bound(panoptic(tmp_path, 3, change=change))


def test_pngs_of_another_size_are_refused_or_left_out_and_so_are_ids_that_nobody_knows(tmp_path: Path) -> None:
    file = panoptic(tmp_path, 3, change=lambda whole: _first(whole).update(id=5))
    place = tmp_path / "annotations/panoptic_val/1.png"
    with PIL.Image.open(place) as picture:
        picture.resize((10, 10), PIL.Image.Resampling.NEAREST).save(place)
    with pytest.raises(DataError, match="its mask has 10 x 10 pixels and the picture 48 x 40"):
        bound(file)
    task, split = bound(file, broken="skip")
    prepared = task.prepare(split, processor(), None, training=False)
    assert prepared.keys.tolist() == [0, 2]
    assert prepared.references is not None
    gone = segments(0)[1][0][1]
    assert (prepared.references[0]["places"].whole()[gone] == NOBODY).all()
    assert len(prepared.references[0]["numbers"]) == len(segments(0)[1]) - 1


def test_a_crowd_is_measured_by_and_not_learnt(tmp_path: Path) -> None:
    task, split = bound(panoptic(tmp_path, 2, change=lambda whole: _first(whole).update(iscrowd=1)))
    found = references((task, split))[0]
    assert found["numbers"][:, 1].sum() == 1
    assert len(targets(batch_of(task, split), 0)) == len(found["numbers"]) - 1


@pytest.mark.parametrize("said", [{"threshold": 0.5}, {"overlap": 0.5}])
def test_what_is_about_panoptic_masks_is_refused_where_instances_are_found(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"data.{next(iter(said))}: is about panoptic masks"):
        bound(coco(tmp_path, 2), **said)


def test_objects_without_a_class_have_the_one_that_the_teacher_calls_so(tmp_path: Path) -> None:
    file = table(tmp_path / "t.parquet", 3)
    for said in ({}, {"stuff": ["sky"]}):
        task, split = bound(file, image="image", labels=["square"], **said)
        task = task.adapted_to(Loaded(model("eomt", names=("circle", "sky", "square")), processor(), "teacher"))
        kinds = {kind for place in range(3) for kind, _ in targets(batch_of(task, split), place)}
        assert {task.problem.names[kind] for kind in kinds} == {"square", *said.get("stuff", ())}


# --- answers ---

OPTIONS: dict[str, Any] = {"classes": 3, "stuff": frozenset({2}), "threshold": 0.5, "overlap": 0.8}


def by_hand(said: Segments, size: tuple[int, int], stuff: frozenset[int], threshold: float, overlap: float
            ) -> tuple[NDArray[np.int64], list[int]]:
    """Mask2Former's `panoptic_inference`, line by line: ids of segments, 0 for none, and their classes."""
    scores, labels = said.logits[0].softmax(-1).max(-1)
    masks = torch.nn.functional.interpolate(said.masks, size=size, mode="bilinear", align_corners=False)[0].sigmoid()
    keep = labels.ne(said.logits.shape[-1] - 1) & (scores > threshold)
    scores, classes, masks = scores[keep], labels[keep], masks[keep]
    ids, kinds = np.zeros(size, np.int64), list[int]()
    if not len(scores):
        return ids, kinds
    whose = (scores[:, None, None] * masks).argmax(0)
    memory = dict[int, int]()
    for k, kind in enumerate(classes.tolist()):
        area, original = (whose == k).sum().item(), (masks[k] >= 0.5).sum().item()
        mask = ((whose == k) & (masks[k] >= 0.5)).numpy()
        if area > 0 and original > 0 and mask.sum() > 0:
            if area / original < overlap:
                continue
            if kind in stuff and kind in memory:
                ids[mask] = memory[kind]
                continue
            kinds.append(kind)
            memory[kind] = len(kinds)
            ids[mask] = len(kinds)
    return ids, kinds


def _said(seed: int) -> Segments:
    """Guesses of rectangles that overlap, more or less sharp."""
    torch.manual_seed(seed)
    rows, columns = torch.rand(2, 1, 9, 2).mul(8).sort(-1).values[..., None, None].unbind(0)
    along = torch.arange(8.0) + 0.5
    inside = ((along[:, None] > rows[:, :, 0]) & (along[:, None] < rows[:, :, 1] + 2)
              & (along > columns[:, :, 0]) & (along < columns[:, :, 1] + 2))
    return Segments(torch.randn(1, 9, 4) * 4, torch.where(inside, 3.0, -3.0) + torch.randn(1, 9, 8, 8))


def same_parts(ids: NDArray[np.int64], kinds: list[int], found: Parted) -> bool:
    ours = {(int(kind), mask.tobytes()) for (kind, _), mask in zip(found["numbers"], masks_of(found))}
    return ours == {(kind, (ids == number).tobytes()) for number, kind in enumerate(kinds, 1)}


def test_pictures_are_parted_as_the_authors_of_mask2former_part_them() -> None:
    fused = several = 0
    for seed in range(25):
        said = _said(seed)
        for threshold, overlap in ((0.5, 0.8), (0.8, 0.3)):
            ids, kinds = by_hand(said, (21, 30), OPTIONS["stuff"], threshold, overlap)
            found = parts(segment_models.packed(said)[0], (21, 30), **{**OPTIONS, "threshold": threshold, "overlap": overlap})
            assert same_parts(ids, kinds, found), seed
            assert (np.diff(found["numbers"][:, 1]) <= 0).all()
            several += len(kinds) > 1
        without, _ = by_hand(said, (21, 30), frozenset(), 0.8, 0.3)
        fused += without.max() > ids.max()
    assert several > 30
    assert fused > 3


def test_sharp_masks_of_sure_guesses_are_parted_as_transformers_does() -> None:
    seen = 0
    for seed in range(6):
        torch.manual_seed(seed)
        kinds = torch.randperm(3).tolist()
        logits = torch.full((1, 3, 4), -20.0)
        blocks = torch.randint(0, 3, (1, 1, 4, 4)).repeat_interleave(96, 2).repeat_interleave(96, 3)
        masks = torch.cat([torch.where(blocks == one, 40.0, -40.0) for one in range(3)], 1)
        for query, kind in enumerate(kinds):
            logits[0, query, kind] = 20.0
        said = Segments(logits, masks)
        found = parts(segment_models.packed(said)[0], (384, 384), **OPTIONS)
        outputs = type("Outputs", (), {"class_queries_logits": logits, "masks_queries_logits": masks})()
        (theirs,) = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(
            outputs, threshold=0.5, overlap_mask_area_threshold=0.8, label_ids_to_fuse={2}, target_sizes=[(384, 384)])
        ids = theirs["segmentation"].numpy().astype(np.int64)
        assert same_parts(ids, [one["label_id"] for one in theirs["segments_info"]], found)
        seen += len(theirs["segments_info"])
    assert seen > 12


def test_numbers_that_are_none_stay_to_be_noticed_and_who_finds_nothing_has_no_segment() -> None:
    said = segment_models.packed(_said(0))[0]
    assert np.isnan(parts(said * torch.nan, (9, 9), **OPTIONS)["numbers"]).any()
    empty = parts(said, (9, 9), **{**OPTIONS, "threshold": 0.999999})
    assert empty["numbers"].shape == (0, 2)
    assert (empty["places"].whole() == NOBODY).all()


def test_the_program_beside_a_file_prints_the_segments_that_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (30, 21)).save("picture.png")
    printed = 0
    for seed in range(12):
        packed = segment_models.packed(_said(seed))
        exec(segment_programs.panoptic(OPTIONS["stuff"], 0.5, 0.8),
             {"segments": packed.numpy(), "labels": {str(one): f"c{one}" for one in range(3)}, "Image": PIL.Image})
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        found = parts(packed[0], (21, 30), **OPTIONS)
        ours = [(f"c{int(kind)}", mask.sum()) for (kind, _), mask in zip(found["numbers"], masks_of(found))]
        assert [line[0] for line in lines] == [name for name, _ in ours]
        assert [int(line[2]) for line in lines] == pytest.approx([number for _, number in ours], abs=2)
        printed += len(lines)
    assert printed > 12


def test_the_exam_measures_things_and_stuff_by_class_and_shows_both(tmp_path: Path) -> None:
    task, split = bound(panoptic(tmp_path, 4))
    exam, right = task.exam(), list(references((task, split)))
    assert isinstance(exam, PanopticExam)
    answers = Answers(np.arange(4), right, right)
    values = {metric.name: metric.compute(answers.given, answers.references) for metric in exam.metrics()}
    assert [*values] == ["pq", "sq", "rq", "pq_things", "sq_things", "rq_things", "pq_stuff", "sq_stuff", "rq_stuff"]
    assert set(values.values()) == {1.0}
    fewer = [{**one, "numbers": np.where(one["numbers"][:, :1] == exam.names.index("sky"), [[exam.names.index("grass"), 1.0]],
                                         one["numbers"])} for one in right]
    worse = answers.but(fewer)
    values = {metric.name: metric.compute(worse.given, worse.references) for metric in exam.metrics()}
    assert values["pq_things"] == 1.0
    assert values["pq_stuff"] == pytest.approx((0 + 4 / (4 + 2)) / 2)  # no sky; of grass 4 found and 4 that is none
    by_class = exam.by_class(worse)
    assert dict(zip(by_class.names, by_class.values))["sky"] == 0
    assert by_class.support.sum() == sum(len(one["numbers"]) for one in right)
    decisions = exam.decisions(worse)
    assert (decisions.decided != decisions.references).sum() == 4
    shown = exam.view(split, {"teacher": answers, "student": worse}, 0, len(right[0]["numbers"]) - 1)
    assert shown.said.keys() == {"", "teacher", "student"}
    assert any(name.startswith("sky") for name, _ in shown.legend)


def test_batches_are_answered_at_the_size_of_each_picture(tmp_path: Path) -> None:
    task, split = bound(panoptic(tmp_path, 2), threshold=0.1, overlap=0.1)
    batch: Batch = batch_of(task, split)
    exam = task.exam()
    given = exam.given(segment_models.packed(_said_of(len(task.problem.names))), batch, None)
    assert [one["places"].shape for one in given] == [SIZE, SIZE]
    assert len(given[0]["numbers"])


def _said_of(classes: int) -> Segments:
    torch.manual_seed(0)
    return Segments(torch.randn(2, 6, classes + 1) * 3, torch.randn(2, 6, 8, 8).cumsum(-1) * 3)
