"""Whole runs of detectors: a folder that transformers loads, files, report; what a check says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Boxed, view_of
from tests.tasks.vision.detecting import coco, folder

QUICK: dict[str, Any] = {"distill": {"epochs": 2, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, family: str = "yolos", **changes: Any) -> dict[str, Any]:
    data = {"train": coco(place / "t", 12), "validation": coco(place / "v", 6, 5)}
    return {"task": "object-detection", "teacher": folder(place / "teacher", family), "student": {"layers": 2},
            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
def test_a_student_comes_nearer_to_what_its_teacher_finds_and_answers_in_pixels(tmp_path: Path) -> None:
    learning = {"epochs": 10, "batch_size": 8, "learning_rate": 2e-3, "precision": "float32"}
    data = {"train": coco(tmp_path / "t", 24, most=1, sizes=((64, 64),)),
            "validation": coco(tmp_path / "v", 16, 5, most=1, sizes=((64, 64),))}
    start = folder(tmp_path / "start", "yolos", num_hidden_layers=2)
    ask = recipe(tmp_path, data=data, student={"model": start},
                 distill={**learning, "objectives": [{"kind": "queries"}]}, export=["onnx", "int8"])
    run = stilla.distill(ask)
    assert (run.scores.metric, run.scores.split) == ("map", "validation")
    logged = [json.loads(line)["loss"] for line in (run.folder / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert logged[-1] < 0.7 * logged[0]
    # the deployed folder, by transformers alone, in original pixels
    model = AutoModelForObjectDetection.from_pretrained(run.student).eval()
    processor = AutoImageProcessor.from_pretrained(run.student, backend="pil")
    picture = PIL.Image.open(tmp_path / "v/1.png")
    inputs = processor(picture, return_tensors="pt")
    with torch.no_grad():
        said = model(pixel_values=inputs["pixel_values"])
    (theirs,) = processor.post_process_object_detection(said, 0.0, torch.tensor([[64, 64]]))
    file = OnnxModel(run.folder / "export/onnx/model.onnx")({"pixel_values": inputs["pixel_values"]})[0].numpy()
    small = OnnxModel(run.folder / "export/int8/model.onnx")({"pixel_values": inputs["pixel_values"]})[0].numpy()
    assert np.linalg.norm(small - file) < 0.1 * np.linalg.norm(file)
    assert run.scores.subjects["int8"].cost.bytes < 0.7 * run.scores.subjects["onnx"].cost.bytes
    scores = 1 / (1 + np.exp(-file[:, :3]))
    np.testing.assert_allclose(np.sort(scores.max(1)), np.sort(theirs["scores"].numpy()), atol=1e-4)
    corners = np.concatenate([file[:, 3:5] - file[:, 5:] / 2, file[:, 3:5] + file[:, 5:] / 2], 1) * 64
    best = scores.max(1).argmax()
    np.testing.assert_allclose(corners[best], theirs["boxes"][theirs["scores"].argmax()].numpy(), atol=1e-2)
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(ask)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert all(isinstance(one, Boxed) and one.boxes for one in shown)
    assert "log-odds" in (run.folder / "export/onnx/README.md").read_text()
    assert evaluate_run(run.folder, coco(tmp_path / "others", 6, 9, sizes=((64, 64),))).metric == "map"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"layers": 2, "lora": {"r": 2}}},
    {"student": {"config": {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}}},
    {"teacher": {"train": {"epochs": 1}}}, {"cache": {"form": "dense", "precision": "float16"}},
    {"cache": {"form": "none"}}, {"distill": {**QUICK["distill"], "objectives": [
        {"kind": "objects"}, {"kind": "queries"}, {"kind": "hidden"}]}},
], ids=["adapters", "config", "trained", "float16", "live", "hidden"])
def test_students_of_every_kind_learn_objects(tmp_path: Path, changes: dict[str, Any]) -> None:
    made = recipe(tmp_path, **changes)
    if "train" in str(changes.get("teacher")):
        made["teacher"] = {"model": folder(tmp_path / "other"), **changes["teacher"]}
    run = stilla.distill({**made, "evaluate": {**QUICK["evaluate"], "baseline": True}})
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    assert np.isfinite(run.scores.student.quality["validation"]["map"].value)


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student"), [("detr", "yolos"), ("rt-detr", "conditional"), ("yolos", "lw-detr"),
                                                  ("dab", "rt-detr-v2"), ("deformable", "d-fine")])
def test_any_detector_teaches_any_other(tmp_path: Path, teacher: str, student: str) -> None:
    made = recipe(tmp_path, teacher, student={"model": folder(tmp_path / "student", student, names=("x", "y", "z"))})
    run = stilla.distill(made)
    model = AutoModelForObjectDetection.from_pretrained(run.student)
    assert set(model.config.id2label.values()) == {"circle", "square", "triangle"}
    assert json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])["terms"].keys() == {"objects", "queries"}


@pytest.mark.slow
def test_pictures_that_nobody_has_labelled_stand_beside_others_and_alone(tmp_path: Path) -> None:
    coco(tmp_path / "more", 8, 40)
    (tmp_path / "more/boxes.json").unlink()
    for number, changes in enumerate(({}, {"train": None, "objects": "objects", "image": "image"})):
        run = stilla.distill(recipe(tmp_path / str(number), data={"unlabelled": str(tmp_path / "more"), **changes}))
        assert 0 < run.scores.learnt["unlabelled"] <= 8  # empty ones look like some that are measured: left out


@pytest.mark.slow
def test_a_run_writes_a_file_of_a_student_that_is_told_where_pictures_end(tmp_path: Path) -> None:
    """What files of every family answer: `test_detector_files.py`."""
    made = recipe(tmp_path, "dab", student={"model": folder(tmp_path / "student", "dab", seed=3)}, export=["onnx"])
    run = stilla.distill(made)
    assert (run.folder / "export/onnx/model.onnx").is_file()  # compared with the model's own answers as it is written


@pytest.mark.slow
def test_the_program_beside_a_file_takes_pictures_on_end_where_all_others_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = {name: coco(tmp_path / name, 6, sizes=((64, 48),)) for name in ("train", "validation")}
    run = stilla.distill(recipe(tmp_path, "detr", data=lying, student={"model": folder(tmp_path / "student", "detr", seed=3)},
                                distill={**QUICK["distill"], "epochs": 1}, export=["onnx"]))
    (program,) = re.findall(r"```python\n(.*?)```", (run.folder / "export/onnx/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(run.folder / "export/onnx")
    picture, found = PIL.Image.open(lying["train"].replace("boxes.json", "1.png")), dict[str, Any]()
    for size in ((640, 480), (480, 640), (500, 500), (30, 90)):
        picture.resize(size).save("picture.png")
        exec(program, found)
        mask = found["inputs"]["pixel_mask"][0]
        assert mask.sum(0).max() / mask.sum(1).max() == pytest.approx(size[1] / size[0], rel=0.1)
        assert np.isfinite(found["detections"]).all()
        if size == (640, 480):  # as the run had them
            own = found["processor"](found["pictures"], return_tensors="np")["pixel_values"]
            np.testing.assert_array_equal(found["inputs"]["pixel_values"], own)


@pytest.mark.slow
def test_files_that_would_find_other_things_are_refused_before_a_run(tmp_path: Path) -> None:
    student = folder(tmp_path / "student", "detr", seed=3)
    found = check(from_options(recipe(tmp_path, student={"model": student}, export=["int8"])))
    assert [one for one in found.problems if "int8: a DetrForObjectDetection finds other things in it" in one], found.problems


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"distill": {"objectives": [{"kind": "logits"}]}}, "a picture has objects in it"),
    ({"distill": {"objectives": [{"kind": "labels"}]}}, "use `objects` and `queries`"),
    ({"cache": {"form": "top_k"}}, "stores a part of a distribution"),
    ({"data": {"augment": "light"}}, "data.augment"),
])
def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    try:
        found = check(from_options(recipe(tmp_path, **changes))).problems
    except stilla.errors.RecipeError as error:
        found = error.problems
    assert any(re.search(words, one) for one in found), found


@pytest.mark.slow
def test_a_check_of_what_works_says_what_a_run_will_do(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path)))
    assert not found.problems
    assert any("objects × 1, queries × 1" in note for note in found.notes)
    assert found.estimate is not None
