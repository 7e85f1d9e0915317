"""A whole run over texts with several numbers each: a student, its files and its scores, all in the data's own units."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import pipeline

import stilla
from tests.tasks.tiny import WORDS, bert_folder

pytestmark = pytest.mark.slow

QUICK = {"batch_size": 16, "precision": "float32"}
WORTH = {word: number / 3 for number, word in enumerate(WORDS)}


def rows(path: Path, count: int, seed: int) -> str:
    """The worth of the first word of three, and a price that falls with it; one in eight prices is not known."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        words = draw.choices(WORDS, k=3)
        heat = WORTH[words[0]] + 0.1 * WORTH[words[1]]
        price = None if draw.random() < 1 / 8 else round(1e4 - 500 * heat, 2)
        lines.append({"text": " ".join(words), "heat": round(heat, 3), "price": price})
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    files = {split: rows(folder / f"{split}.jsonl", size, seed)
             for seed, (split, size) in enumerate((("train", 240), ("validation", 60), ("test", 60)))}
    start = bert_folder(folder / "start", num_hidden_layers=2, num_labels=5)
    return {
        "task": "text-classification", "data": {**files, "label": ["heat", "price"], "augment": "none"},
        "teacher": {"model": str(start), "train": {**QUICK, "epochs": 10, "learning_rate": 5e-3}},
        "student": {"layers": 1}, "distill": {**QUICK, "epochs": 5, "learning_rate": 5e-3}, "cache": "dense",
        "evaluate": {"baseline": True, "resamples": 100, "speed": False}, "output": str(folder / "run"), **changes}


def test_several_numbers_are_learnt_measured_exported_and_answered_in_their_own_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recipe(tmp_path, export=["onnx"])
    run = stilla.distill(**whole)
    scores = run.scores
    assert scores.metric == "pearson"
    assert scores.teacher["pearson"] > 0.9
    assert scores.student["pearson"] > 0.85
    assert set(scores.student.quality["test"]) == {"pearson", "spearman", "r2", "rmse_heat", "rmse_price"}
    assert 5 < scores.student["rmse_price"] < 500  # of prices around 9000
    assert scores.subjects["onnx"]["rmse_price"] == pytest.approx(scores.student["rmse_price"], rel=1e-3)
    assert scores.subjects["baseline"]["pearson"] > 0.7
    resolved = yaml.safe_load((run.folder / "recipe.yaml").read_text())["data"]
    assert resolved["kind"] == "regression"
    assert resolved["label_scale"]["price"][0] == pytest.approx(1e4 - 500 * 2, rel=0.05)
    texts = [json.loads(line) for line in Path(whole["data"]["test"]).read_text().splitlines()]
    answer = pipeline("text-classification", model=str(run.student), top_k=None)
    said = [{one["label"]: one["score"] for one in several} for several in answer([row["text"] for row in texts])]
    known = [number for number, row in enumerate(texts) if row["price"] is not None]
    errors = np.array([said[one]["price"] - texts[one]["price"] for one in known])
    assert np.sqrt((errors**2).mean()) == pytest.approx(scores.student["rmse_price"], rel=1e-3)
    capsys.readouterr()
    stilla.distill(**whole)
    assert "student: finished before, skipped" in capsys.readouterr().err
