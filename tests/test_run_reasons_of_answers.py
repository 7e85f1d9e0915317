"""Whole runs that keep, and measure, what answers rest on that are no one class of a text or picture."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import stilla
from stilla.check import check
from stilla.recipe import Recipe
from stilla.views import Sound, Weights
from tests.tasks.text import answerers, taggers
from tests.tasks.tiny import WORDS, bert_folder

pytestmark = pytest.mark.slow


def worth(path: Path, count: int, *labels: str) -> str:
    """Three words with numbers, or flags, that follow from them."""
    draw = random.Random(count)
    rows = []
    for _ in range(count):
        words = draw.choices(WORDS, k=3)
        place = WORDS.index(words[0])
        rows.append({"text": " ".join(words), **{
            label: place / 3 if label == "heat" else int(place % (number + 2) == 0) for number, label in enumerate(labels)}})
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def numbers(folder: Path) -> dict[str, Any]:
    return {"task": "text-classification", "data": {"train": worth(folder / "train.jsonl", 40, "heat"), "label": "heat",
                                                    "kind": "regression"},
            "teacher": {"model": str(bert_folder(folder / "start", num_hidden_layers=2, num_labels=1)), "train": {}}}


def labels(folder: Path) -> dict[str, Any]:
    names = ["even", "third", "fourth"]
    return {"task": "text-classification", "data": {"train": worth(folder / "train.jsonl", 40, *names), "label": names},
            "teacher": {"model": str(bert_folder(folder / "start", num_hidden_layers=2, num_labels=3)), "train": {}}}


def tags(folder: Path) -> dict[str, Any]:
    rows = taggers.sentences(40)
    (folder / "train.jsonl").write_text("\n".join(
        json.dumps({"tokens": words, "tags": said}) for words, said in zip(*rows.values(), strict=True)))
    return {"task": "token-classification", "data": {"train": str(folder / "train.jsonl")},
            "teacher": {"model": taggers.folder(folder / "start"), "train": {}}}


def answers(folder: Path) -> dict[str, Any]:
    return {"task": "question-answering", "data": {"train": answerers.squad(folder / "train.json", 40), "max_length": 32,
                                                   "longest_answer": 6},
            "teacher": {"model": answerers.folder(folder / "start"), "train": {}}}


def sounds(folder: Path) -> dict[str, Any]:
    setting = pytest.importorskip("tests.tasks.audio.setting")
    return {"task": "audio-classification", "data": {"train": setting.folders(folder / "sounds", 6)},
            "teacher": {"model": setting.folder(folder / "start", norm="group"), "train": {}}}


KINDS = (numbers, labels, tags, answers, sounds)
SAID = {numbers: {"heat"}, labels: {"even", "third", "fourth"}, tags: set(taggers.ENTITIES), answers: None,
        sounds: {"low", "mid", "high"}}


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_it_is_learnt_measured_with_its_ceiling_and_shown(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    quick = {"batch_size": 8, "precision": "float32", "max_steps": 4, "learning_rate": 1e-3}
    recipe = kind(tmp_path)
    recipe["teacher"]["train"] = quick
    whole = {**recipe, "student": {"layers": 1}, "allow_weak_teacher": True, "output": str(tmp_path / "run"),
             "distill": {**quick, "objectives": [
                 {"kind": "logits", **({"divergence": "mse"} if kind is numbers else {})},
                 {"kind": "saliency", "weight": 0.5}]},
             "evaluate": {"resamples": 100, "speed": False, "saliency": {"examples": 8, "steps": 3}}}
    assert not check(Recipe.model_validate(whole)).problems
    run = stilla.distill(whole)
    found = run.scores.reasons
    assert found is not None, run.scores.notes
    assert found.agreement.keys() == {"student"}
    assert found.ceiling is not None
    assert -1 <= found.agreement["student"].value <= 1
    losses = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    told = [line["terms"]["saliency"] for line in losses if line["stage"] == "student" and "terms" in line]
    assert told
    assert all(0 < one < 2 for one in told)
    assert found.shown
    for one in found.shown:
        if kind is sounds:
            assert isinstance(one.shown, Sound)
            weights = one.shown.weights
        else:
            weights = one.shown if isinstance(one.shown, Weights) else None
        assert weights is not None
        assert weights.said.keys() == {"teacher", "student"}
        assert max(map(abs, weights.said["teacher"])) == 1
        assert SAID[kind] is None or {*one.label.split(", ")} <= SAID[kind]
    page = run.report.read_text(encoding="utf-8")
    assert 'style="background:rgba(' in page
    assert ("<audio" in page) == (kind is sounds)


def test_check_refuses_rows_that_are_no_answers(tmp_path: Path) -> None:
    from tests.tasks.vision.test_segmentation_runs import recipe

    whole = recipe(tmp_path)
    whole["evaluate"] = {**whole.get("evaluate", {}), "saliency": 5}
    found = check(Recipe.model_validate(whole)).problems
    assert any(one.startswith("evaluate.saliency: what an answer rests on is asked of a whole example") for one in found)
