"""Whole runs of recommenders: teachers of random weights, students, files, reports; and the levers of every task."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Ranking, view_of
from tests.tasks.recommendation.setting import CONFIGS, events

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "precision": "float32", "learning_rate": 1e-2}


def recipe(place: Path, mask: float | None = None, **changes: Any) -> dict[str, Any]:
    kind = "llama" if mask is None else "bert"
    held = [] if mask is None else [("mask", mask)]
    files = {name: events(place / f"{name}.csv", users, seed, segments=True)
             for seed, (name, users) in enumerate({"train": 120, "validation": 40, "test": 40}.items())}
    data = {**files, "max_length": 8, **dict(held)}
    longer = {**QUICK, "epochs": 4 if mask is None else 25}
    return {"task": "recommendation", "teacher": {"model": kind, "config": CONFIGS[kind], "train": longer},
            "student": {"layers": 1}, "distill": QUICK, "evaluate": {"resamples": 100, "speed": False},
            "allow_weak_teacher": True, "output": str(place / "run"), **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, 0.3], ids=["next", "hidden"])
def test_from_events_to_files_that_recommend(tmp_path: Path, mask: float | None) -> None:
    ask = recipe(tmp_path, mask, export=["onnx", *(["int8"] if mask is None else [])])
    ask["evaluate"] |= {"baseline": True, "slices": ["segment"]}
    run = stilla.distill(ask)
    scores = run.scores
    assert (scores.metric, scores.split) == ("ndcg_at_10", "test")
    assert set(scores.subjects) == {"teacher", "student", "baseline", *ask["export"], "popularity"}
    quality = {name: one.quality["test"]["ndcg_at_10"].value for name, one in scores.subjects.items()}
    assert quality["teacher"] > quality["popularity"] + 0.1
    assert quality["onnx"] == pytest.approx(quality["student"], abs=1e-9)
    assert scores.subjects["popularity"].kl == {}
    assert {(part.column, part.name) for part in scores.slices} == {("segment", "even"), ("segment", "odd")}
    auto = AutoModelForCausalLM if mask is None else AutoModelForMaskedLM
    plain = auto.from_pretrained(run.student)
    ids = torch.tensor([[1, 2, 3], [4, 5, 24]])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    with torch.no_grad():
        np.testing.assert_allclose(file(inputs), plain(**inputs).logits, atol=1e-4)
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert shown
    assert all(isinstance(one, Ranking) and {"teacher", "student"} <= set(one.lists) for one in shown)
    assert "✓" in run.report.read_text(encoding="utf-8")
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(ask)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    assert evaluate_run(run.folder, events(tmp_path / "others.csv", 30, 3)).metric == "ndcg_at_10"
    if mask is None:
        programs_run(run)


def programs_run(run: stilla.Run) -> None:
    """The README beside the file, and the student's model card."""
    place = run.folder / "export/onnx"
    (code,) = re.findall(r"```python\n(.*?)```", (place / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout.replace("'", '"'))) == 10
    card = (run.student / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    there: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(run.student)), there)
    assert len(there["recommend"](["i3", "i4"], 5)) == 5


LEVERS: dict[str, dict[str, Any]] = {
    "stored hidden states, layers compared, lists": {"cache": {"form": "hidden"}, "distill": {**QUICK, "objectives": [
        {"kind": "logits"}, {"kind": "hidden"}, {"kind": "listwise", "top": 5, "weight": 0.2}]}},
    "the likeliest, a narrower student": {"cache": {"form": "top_k", "k": 5}, "student": {"width": 0.5}, "distill": {
        **QUICK, "objectives": [{"kind": "logits"}, {"kind": "listwise", "top": 5}]}},
    "draws, a student of another config": {
        "cache": {"form": "samples"}, "student": {"config": {"hidden_size": 8, "intermediate_size": 16}},
        "distill": {**QUICK, "objectives": [{"kind": "logits", "temperature": 1.0}]}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVERS)
def test_what_other_tasks_have_this_one_has(tmp_path: Path, name: str) -> None:
    run = stilla.distill(recipe(tmp_path, **LEVERS[name]))
    assert run.scores.student["ndcg_at_10"] > 0.1


@pytest.mark.slow
def test_a_cache_changes_nothing(tmp_path: Path) -> None:
    found = []
    for form in ("none", "dense"):
        (tmp_path / form).mkdir()
        found.append(stilla.distill(recipe(tmp_path / form, cache={"form": form})).scores.student.quality)
    for split, metrics in found[0].items():
        for metric, one in metrics.items():
            assert found[1][split][metric].value == pytest.approx(one.value, abs=5e-3)


@pytest.mark.slow
def test_adapters_learn_from_histories_of_which_only_the_teacher_says_what_follows(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pool = events(tmp_path / "pool.csv", 50, 7)
    run = stilla.distill(recipe(tmp_path, data={"unlabelled": pool}, student={"layers": 1, "lora": {"r": 4}}))
    assert run.scores.learnt["unlabelled"] > 40
    assert not AutoModelForCausalLM.from_pretrained(run.student).training


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "why"), [
    ({"student": {"vocabulary": "data"}}, "read items and no text: their vocabulary is the catalogue"),
    ({"distill": {"objectives": [{"kind": "ranking"}]}}, "for task: reranking"),
    ({"distill": {"objectives": [{"kind": "dist"}]}}, "over a vocabulary their logits are never there at once"),
    ({"evaluate": {"metric": "hr_at_20"}}, "evaluate.metric: got 'hr_at_20'"),
    ({"data": {"users": "same"}}, "none of its users is in the files before"),
    ({"cache": {"form": "top_k", "k": 3}, "distill": {"objectives": [{"kind": "listwise"}]}},
     "`listwise` needs the 10 likeliest classes, and cache.k is 3"),
])
def test_what_makes_no_sense_is_refused_by_a_check(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    found = check(from_options(recipe(tmp_path, **changes)))
    assert any(why in problem for problem in found.problems), found.problems


@pytest.mark.slow
@pytest.mark.parametrize("hold_out", ["last", "users"])
def test_a_check_of_one_table_and_a_teacher_of_random_weights_finds_nothing_wrong(tmp_path: Path, hold_out: str) -> None:
    ask = recipe(tmp_path, student={"size": 0.6})
    ask["data"] = {"train": ask["data"]["train"], "hold_out": hold_out, "max_length": 8}
    found = check(from_options(ask))
    assert not found.problems
    assert found.estimate is not None
