"""Whole runs with several labels: not all are known, they count differently, and apply from chosen probabilities on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from transformers import AutoConfig, pipeline

import stilla
from stilla.after import evaluate_run, export_run
from stilla.recipe.file import read
from tests import tiny


@pytest.mark.slow
def test_a_student_has_thresholds_of_its_own_and_is_judged_by_them(tmp_path: Path) -> None:
    said = tiny.recipe(tmp_path, evaluate={"baseline": True, "resamples": 100, "speed": False})
    for split, file in said["data"].items():
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        Path(file).write_text("".join(json.dumps({
            "text": row["text"], "food": int(row["topic"] == "food"),
            "loud": None if number % 5 == 0 and split == "train" else int(row["topic"] == "music")}) + "\n"
            for number, row in enumerate(rows)))
    run = stilla.distill({**said, "data": {**said["data"], "label": ["food", "loud"], "label_weights": "balanced",
                                           "thresholds": "tuned"}})
    chosen = AutoConfig.from_pretrained(run.student).thresholds
    assert set(chosen) == {"food", "loud"}
    assert all(0 < one < 1 for one in chosen.values())
    resolved = read(run.folder / "recipe.yaml")
    assert np.isclose(resolved.data.label_weights["food"], 2.0)  # a third of the examples has it
    assert resolved.data.label_weights["loud"] > 1.5
    # an exported file is read by them too
    (file,) = export_run(run.folder, ["onnx"]).values()
    program = (file / "README.md").read_text()
    assert "> thresholds[name]" in program
    # measured again with the thresholds that were saved, on what is known of the test data
    rows = [json.loads(line) for line in Path(said["data"]["test"]).read_text().splitlines()]
    scores = pipeline("text-classification", str(run.student), top_k=None)([row["text"] for row in rows])
    found = [{one["label"]: one["score"] > chosen[one["label"]] for one in several} for several in scores]
    known = [[int(row[name]) for row in rows] for name in chosen]
    ours = [[int(one[name]) for one in found] for name in chosen]
    measured = run.scores.subjects["student"]["macro_f1"]
    assert np.mean([f1_score(*pair) for pair in zip(known, ours)]) == pytest.approx(measured, abs=1e-6)


def with_lists(said: dict, folder: Path) -> None:
    """Topics as labels of a list, in the data and in the model that is begun with."""
    for file in said["data"].values():
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        Path(file).write_text("".join(json.dumps({"text": row["text"], "labels": [row["topic"]]}) + "\n" for row in rows))
    config = AutoConfig.from_pretrained(folder)
    names = dict(enumerate(tiny.TOPICS))
    config.update({"id2label": names, "label2id": {name: number for number, name in names.items()},
                   "problem_type": "multi_label_classification"})
    config.save_pretrained(folder)


@pytest.mark.slow
def test_other_data_are_judged_by_what_was_chosen_on_the_runs_own(tmp_path: Path) -> None:
    said = tiny.recipe(tmp_path)
    with_lists(said, tmp_path / "start")
    run = stilla.distill({**said, "data": {**said["data"], "thresholds": "tuned"}, "teacher": str(tmp_path / "start"),
                          "allow_weak_teacher": True,
                          "distill": {"max_steps": 8, "learning_rate": 1e-2, "precision": "float32"},
                          "evaluate": {"baseline": False, "resamples": 100, "speed": False}})
    thresholds = AutoConfig.from_pretrained(run.student).thresholds
    assert any(abs(one - 0.5) > 0.01 for one in thresholds.values())
    assert stilla.Run.load(str(run.folder)) == run
    other = tmp_path / "other" / "validation.jsonl"  # called as the data on which models choose
    other.parent.mkdir()
    rows = [json.loads(line) for line in Path(said["data"]["test"]).read_text().splitlines()]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows[:25]))
    found = evaluate_run(run.folder, other)
    assert [*found.student.quality] == ["validation"]
    answered = pipeline("text-classification", str(run.student), top_k=None)([row["text"] for row in rows[:25]])
    given = [{one["label"]: one["score"] > thresholds[one["label"]] for one in several} for several in answered]
    pair = [[[int(name in row["labels"]) for name in tiny.TOPICS] for row in rows[:25]],
            [[int(one[name]) for name in tiny.TOPICS] for one in given]]
    assert found.student.quality["validation"]["micro_f1"].value == pytest.approx(f1_score(*pair, average="micro"), abs=1e-6)
    whole = evaluate_run(run.folder, said["data"]["test"])  # the teacher too chooses on the run's own validation data
    assert whole.teacher.quality["test"]["micro_f1"].value == run.scores.teacher.quality["test"]["micro_f1"].value
    Path(said["data"]["validation"]).unlink()
    assert any("validation data are not there any more" in note for note in evaluate_run(run.folder, other).notes)


@pytest.mark.slow
def test_thresholds_of_whom_a_student_began_as_are_not_its_own(tmp_path: Path) -> None:
    said, teacher = tiny.recipe(tmp_path), tmp_path / "start"
    with_lists(said, teacher)
    config = AutoConfig.from_pretrained(teacher)
    config.update({"thresholds": dict.fromkeys(tiny.TOPICS, 0.9)})
    config.save_pretrained(teacher)
    run = stilla.distill({**said, "teacher": str(teacher), "allow_weak_teacher": True, "export": ["onnx"],
                          "distill": {"max_steps": 1, "precision": "float32"},
                          "evaluate": {"baseline": False, "resamples": 100, "speed": False}})
    assert not hasattr(AutoConfig.from_pretrained(run.student), "thresholds")
    assert "thresholds" not in (run.folder / "export" / "onnx" / "README.md").read_text()
