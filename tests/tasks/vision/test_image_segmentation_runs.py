"""Whole runs of models of masks: a folder that transformers loads, files, report; what a check says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

import stilla
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Overlays, view_of
from tests.tasks.vision.segmenting import coco, folder, table

QUICK: dict[str, Any] = {"distill": {"epochs": 2, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, family: str = "eomt", **changes: Any) -> dict[str, Any]:
    data = {"train": coco(place / "t", 8), "validation": coco(place / "v", 4, 50)}
    return {"task": "image-segmentation", "teacher": folder(place / "teacher", family), "student": {"layers": {"layers": 2}},
            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "eomt"])
def test_a_student_of_another_family_learns_and_its_file_and_folder_answer_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    start = folder(tmp_path / "start", family, names=("x", "y", "z"))
    ask = recipe(tmp_path, "maskformer" if family == "eomt" else "eomt", student={"model": start},
                 export=["onnx", "int8"] if family == "eomt" else ["onnx"],
                 distill={**QUICK["distill"], "epochs": 6, "learning_rate": 3e-3})
    run = stilla.distill(ask)
    assert (run.scores.metric, run.scores.split) == ("map", "validation")
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert lines[0]["terms"].keys() == {"segments", "masks"}
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    # the deployed folder, by transformers alone
    model = AutoModelForUniversalSegmentation.from_pretrained(run.student).eval()
    assert set(model.config.id2label.values()) == {"circle", "square", "triangle"}
    assert not model.config.to_dict().get("output_auxiliary_logits")
    processor = AutoImageProcessor.from_pretrained(run.student, backend="pil")
    inputs = processor(PIL.Image.open(tmp_path / "v/1.png"), return_tensors="pt")
    with torch.no_grad():
        said = model(**inputs)
    if family == "eomt":
        small, whole = (OnnxModel(run.folder / f"export/{one}/model.onnx")(dict(inputs)) for one in ("int8", "onnx"))
        assert (small - whole).norm() < 0.1 * whole.norm()
    # the file, by the program beside it
    (program,) = re.findall(r"```python\n(.*?)```", (run.folder / "export/onnx/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(run.folder / "export/onnx")
    shutil.copy(tmp_path / "v/1.png", "picture.png")
    found = dict[str, Any]()
    exec(program, found)
    np.testing.assert_allclose(found["segments"][0, :, 1:], said.masks_queries_logits[0].numpy(), atol=1e-3)
    odds = torch.from_numpy(found["segments"][0, :, 0, :3])
    torch.testing.assert_close(odds.sigmoid(), said.class_queries_logits[0].softmax(-1)[:, :-1], atol=1e-4, rtol=1e-3)
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert all(isinstance(one, Overlays) and {"", "teacher", "student"} <= one.said.keys() for one in shown)


@pytest.mark.slow
def test_a_cache_changes_nothing_and_pictures_that_nobody_has_labelled_teach(tmp_path: Path) -> None:
    losses = []
    for number, form in enumerate(("none", "dense")):
        cache = {"form": form} if form == "none" else {"form": form, "precision": "float32"}
        made = recipe(tmp_path / str(number), cache=cache, data={"unlabelled": table(tmp_path / f"{number}.parquet", 6, 80)})
        run = stilla.distill({**made, "distill": {**QUICK["distill"], "epochs": 1}})
        assert 0 < run.scores.learnt["unlabelled"] <= 6
        lines = (run.folder / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"loss"' in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_teacher_of_things_and_stuff_is_trained_first_and_a_baseline_measured(tmp_path: Path) -> None:
    data = {"train": table(tmp_path / "t.parquet", 8), "validation": table(tmp_path / "v.parquet", 4, 50), "image": "image"}
    run = stilla.distill(recipe(
        tmp_path, teacher={"model": folder(tmp_path / "raw"), "train": {"epochs": 1}},
        data={**data, "labels": ["cell"], "stuff": ["ground"], "threshold": 0.0, "overlap": 0.0},
        student={"layers": {"layers": 2}, "lora": {"r": 2}}, evaluate={**QUICK["evaluate"], "baseline": True}))
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    assert run.scores.metric == "pq"
    assert 0 <= run.scores.student.quality["validation"]["pq_stuff"].value <= 1
    shown = [view_of(flip.shown) for flip in run.scores.flips]
    assert all(isinstance(one, Overlays) and {"", "teacher", "student"} <= one.said.keys() for one in shown)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"distill": {"objectives": [{"kind": "logits"}]}}, "a picture has objects in it"),
    ({"distill": {"objectives": [{"kind": "objects"}]}}, "divided by the number of objects, which this task does not count"),
    ({"cache": {"form": "top_k"}}, "stores a part of a distribution"),
    ({"distill": {"objectives": [{"kind": "hidden", "layer_map": [0, 1]}, {"kind": "masks"}]}},
     "the student has 27 positions, the teacher 21"),
    ({"data": {"overlap": 0.5}}, "data.overlap: is about panoptic masks"),
])
def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = check(from_options(recipe(tmp_path, **changes))).problems
    assert any(words in one for one in found), found


@pytest.mark.slow
def test_files_in_which_masks_would_be_others_are_refused_before_a_run(tmp_path: Path) -> None:
    student = folder(tmp_path / "student", "maskformer", seed=3)
    found = check(from_options(recipe(tmp_path, student={"model": student}, export=["int8"]))).problems
    assert any("int8: a MaskFormerForInstanceSegmentation finds other masks in it" in one for one in found), found
