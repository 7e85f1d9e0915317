"""Whole runs of segmentation: from folders to a student that plain transformers loads, its files and its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, SegformerForImageClassification, pipeline

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Overlays, view_of
from tests.tasks.tiny import vit_folder
from tests.tasks.vision.scenes import NAMES, config, drawn, folder, processor, segformer, table
from tests.tasks.vision.test_segmentation import family

QUICK: dict[str, Any] = {"distill": {"max_steps": 4, "batch_size": 4, "precision": "float32", "learning_rate": 3e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    place.mkdir(exist_ok=True)
    data = {"train": table(place / "t.parquet", 12), "validation": table(place / "v.parquet", 6, 50), "labels": list(NAMES)}
    made: dict[str, Any] = {"task": "semantic-segmentation", "student": {"config": {"depths": [1, 1, 1, 1]}},
                            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}
    if "teacher" not in made:
        made["teacher"] = str(segformer(place / "teacher", std=0.2))
    return made


@pytest.mark.slow
def test_a_student_of_folders_is_a_plain_folder_with_files_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "streets", ("train", "val"), 12)
    (Path(place) / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    ask = recipe(tmp_path / "r", export=["onnx"], data={"train": place, "validation": None, "labels": None,
                 "unlabelled": table(tmp_path / "more.parquet", 8, 300, masks=False)})
    run = stilla.distill(ask)
    assert (run.scores.metric, set(run.scores.subjects)) == ("mean_iou", {"teacher", "student", "onnx"})
    assert run.scores.learnt.keys() == {"labelled", "unlabelled"}
    assert sum(run.scores.learnt.values()) == 16  # 4 steps of 4
    assert run.scores.student.quality["validation"]["mean_iou"].low is not None
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(ask)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert shown
    assert all(isinstance(one, Overlays) and list(one.said) == ["", "teacher", "student"] for one in shown)
    assert 'class="overlays"' in run.report.read_text(encoding="utf-8")
    _deployed(run.student, run.folder / "export/onnx", tmp_path, monkeypatch)
    other = evaluate_run(run.folder, table(tmp_path / "others.parquet", 4, 900, size=(33, 20)))
    assert 0 < other.student.quality[other.split]["mean_iou"].value < 1


def _deployed(student: Path, exported: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder by plain transformers, its pipeline, and the file by the program in its README, give one mask."""
    picture = PIL.Image.fromarray(drawn(7)[0])
    model = AutoModelForSemanticSegmentation.from_pretrained(student).eval()
    own = AutoImageProcessor.from_pretrained(student, backend="pil")
    inputs = own([picture, picture], return_tensors="pt")
    with torch.no_grad():
        said = model(**inputs)
    (mask, _) = own.post_process_semantic_segmentation(said, [picture.size[::-1]] * 2)
    file = OnnxModel(exported / "model.onnx")
    np.testing.assert_allclose(file(dict(inputs)), said.logits, atol=1e-4)
    parts = pipeline("image-segmentation", model=str(student), image_processor=own)(picture)
    for part in parts:
        np.testing.assert_array_equal(np.asarray(part["mask"]) > 0, mask.numpy() == NAMES.index(part["label"]))
    program = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(exported)
    picture.save("picture.png")
    found: dict[str, Any] = {}
    exec(program, found)
    assert (found["mask"] == mask.numpy()).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"layers": {"depths": [1, 2, 1, 1]}}, "cache": {"form": "dense", "precision": "float16"}},
    {"student": {"layers": {"depths": [1, 1, 1, 1]}, "lora": {"r": 2}},
     "data": {"augment": "flips", "stride": 2, "size": [24, 40]}},
    {"distill": {**QUICK["distill"], "objectives": [
        {"kind": "labels"}, {"kind": "channels", "weight": 0.1}, {"kind": "pairwise"}, {"kind": "dkd"},
        {"kind": "hidden", "pooling": "mean"}]}, "cache": {"form": "none"}},
], ids=["stages", "adapters", "objectives"])
def test_students_of_every_kind_learn_masks(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = stilla.distill(recipe(tmp_path / "r", **changes))
    assert np.isfinite(run.scores.student["mean_iou"])
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])
    assert all(np.isfinite(value) for value in logged["terms"].values())


@pytest.mark.slow
def test_a_teacher_of_queries_and_another_resolution_teaches_a_segformer(tmp_path: Path) -> None:
    """The student's body is a checkpoint for classes of pictures, its head is new."""
    torch.manual_seed(1)
    SegformerForImageClassification(config(depths=[1, 1, 1, 1])).save_pretrained(tmp_path / "student")
    processor(32).save_pretrained(tmp_path / "student")
    run = stilla.distill(recipe(tmp_path / "r", teacher=str(family("mask2former", tmp_path / "t")),
                                student={"model": str(tmp_path / "student")}))
    assert set(run.scores.subjects) == {"teacher", "student"}
    assert AutoImageProcessor.from_pretrained(run.student, backend="pil").size["height"] == 32


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"data": {"labels": ["sky", "tree"]}}, "ids that no class has: 2, in 12 of 12 masks"),
    ({"cache": {"form": "top_k"}, "distill": {"objectives": [{"kind": "channels"}]}}, "`channels` cannot use cache.form"),
    ({"data": {"augment": "light"}, "cache": {"form": "dense"}}, "these examples change at random in every epoch"),
    ({"student": {"layers": 2}}, r"expected a list of 4 numbers"),
    ({"data": {"labels": ["sky", "tree", "path"]}}, "does not know 1 of the data's 3 labels: 'path'"),
    ({"student": {"vocabulary": "data"}}, "student.vocabulary|vocabulary"),
    ({"distill": {"objectives": [{"kind": "ranking"}]}}, "`ranking` "),
])
def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = check(from_options(recipe(tmp_path / "r", **changes)))
    assert any(re.search(words, one) for one in found.problems), found.problems


@pytest.mark.slow
def test_a_check_of_what_works_says_what_a_run_will_do(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path / "r")))
    assert not found.problems
    assert any("logits × 0.7" in note for note in found.notes)
    assert found.estimate is not None


@pytest.mark.slow
def test_objectives_of_pictures_are_refused_where_rows_are_none(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for kind in ("a", "b"):
        (tmp_path / "p" / kind).mkdir()
        for one in range(6):
            PIL.Image.fromarray(drawn(one)[0]).save(tmp_path / "p" / kind / f"{one}.png")
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    found = check(from_options({"task": "image-classification", "data": str(tmp_path / "p"), "student": 1,
                                "teacher": str(vit_folder(tmp_path / "t", **names)), "output": str(tmp_path / "run"),
                                "distill": {"objectives": [{"kind": "channels"}]}}))
    assert any("(channels): is divided by the number of pictures, which this task does not count" in one
               for one in found.problems), found.problems
