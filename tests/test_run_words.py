"""Whole runs over words with tags: from files to a student, its files and its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

import stilla
from stilla.check import check
from stilla.recipe.file import from_options
from tests.tasks.text import taggers

pytestmark = pytest.mark.slow

QUICK = {"batch_size": 8, "precision": "float32"}


def files(folder: Path, form: str) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, (split, size) in enumerate((("train", 100), ("validation", 30), ("test", 40))):
        rows = taggers.sentences(size, seed)
        path = folder / f"{split}.{'conll' if form == 'columns' else 'jsonl'}"
        if form == "columns":
            text = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in zip(*pair)) for pair in zip(*rows.values()))
        else:
            text = "\n".join(json.dumps({"text": " ".join(words), "entities": spans(words, tags)})
                             for words, tags in zip(*rows.values()))
        path.write_text(text + "\n", encoding="utf-8")
        made[split] = str(path)
    return made


def spans(words: list[str], tags: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    at = 0
    for word, tag in zip(words, tags):
        if tag.startswith("B-"):
            found.append({"start": at, "end": at + len(word), "label": tag[2:]})
        elif tag.startswith("I-"):
            found[-1]["end"] = at + len(word)
        at += len(word) + 1
    return found


def recipe(folder: Path, form: str = "columns", **changes: Any) -> dict[str, Any]:
    return {
        "task": "token-classification", "data": files(folder / "data", form),
        "teacher": {"model": taggers.folder(folder / "start", layers=4, hidden_size=32, intermediate_size=64),
                    "train": {**QUICK, "epochs": 12, "learning_rate": 5e-3}},
        "student": {"layers": 2}, "distill": {**QUICK, "epochs": 6, "learning_rate": 3e-3},
        "evaluate": {"baseline": True, "resamples": 100, "speed": False}, "output": str(folder / "run"), **changes}


def test_entities_are_learnt_exported_and_shown(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("Ann and Bob\nnear Bern\nwalks in Winterthur\n" * 5, encoding="utf-8")
    whole = recipe(tmp_path, export=["onnx", "int8"])
    whole["data"]["unlabelled"] = str(tmp_path / "more.txt")
    run = stilla.distill(**whole)
    scores = run.scores
    assert scores.metric == "entity_f1"
    assert scores.units == "words"
    assert scores.teacher["entity_f1"] > 0.6
    assert scores.student["entity_f1"] > 0.4
    assert scores.subjects["onnx"]["entity_f1"] == pytest.approx(scores.student["entity_f1"], abs=1e-6)
    assert scores.subjects["int8"]["word_accuracy"] > 0.5
    assert {one.name for one in scores.classes} == {"LOC", "PER"}
    assert scores.learnt["unlabelled"]
    said = pipeline("token-classification", model=str(run.student), aggregation_strategy="first")("Ann walks in Bern")
    assert {one["entity_group"] for one in said} <= {"PER", "LOC"}
    if scores.flips:
        page = run.report.read_text(encoding="utf-8")
        assert re.search(r'<mark class="[^"]*">', page)
        assert '<sub class="data">?</sub>' in page


def test_a_student_with_another_tokenizer_learns_from_spans_and_from_a_cache(tmp_path: Path) -> None:
    student = taggers.folder(tmp_path / "student", "roberta", names=("X", "Y"))
    objectives = [{"kind": "labels"}, {"kind": "logits"}, {"kind": "dkd"}, {"kind": "dist"},
                  {"kind": "hidden", "pooling": "mean", "layer_map": [1, 3], "weight": {"linear": [1.0, 0.0]}}]
    whole = recipe(tmp_path, "spans", student={"model": student}, cache="dense", distill=[
        {**QUICK, "learning_rate": 5e-4, "epochs": 2, "objectives": objectives},
        {**QUICK, "learning_rate": 5e-4, "epochs": 2, "objectives": objectives[:2]}])
    run = stilla.distill(**whole)
    assert run.scores.student.agreement["test"].value > 0.3
    assert run.scores.student.kl["test"] < 2


def test_check_says_what_makes_no_sense(tmp_path: Path) -> None:
    student = taggers.folder(tmp_path / "student", "roberta")
    whole = recipe(tmp_path, student={"model": student}, distill={**QUICK, "objectives": [{"kind": "hidden"}]})
    whole["teacher"] = {"model": taggers.folder(tmp_path / "teacher", tokenizer=taggers.wordpieces("zebra", "quagga"))}
    found = check(from_options(whole))
    assert any("has 9 positions, the teacher 14: hidden states compare position by position" in one
               for one in found.problems)
    pooled = check(from_options({**whole, "distill": {**QUICK, "objectives": [{"kind": "logits"}]}}))
    assert not pooled.problems
    assert pooled.estimate is not None
    assert any("labels: 5: O, B-LOC, I-LOC, B-PER, I-PER" in note for note in pooled.notes)
    smaller = check(from_options({**whole, "student": {"layers": 1, "vocabulary": "data"}}))
    assert not smaller.problems  # token by token, as the teacher is asked about the student's pieces
