"""Whole runs of models that write about pictures: report, folder, unlabelled pictures, adapters; what a check says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import stilla
from stilla.check import check
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Picture, view_of
from tests.tasks.vision_text import tellers
from tests.tasks.vision_text.setting import picture

pytestmark = pytest.mark.slow
QUICK: dict[str, Any] = {"distill": {"max_steps": 4, "batch_size": 4, "precision": "float32", "learning_rate": 5e-3},
                         "evaluate": {"resamples": 100, "speed": False, "generation": {"max_new_tokens": 16}},
                         "allow_weak_teacher": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    own = {"train": tellers.captioned(place / "train.parquet", 12), "validation": tellers.captioned(place / "v.parquet", 4)}
    return {"task": "image-text-to-text", "teacher": tellers.folder(place / "teacher"), "student": {"layers": {"text": 1}},
            "output": str(place / "run"), **QUICK, **changes, "data": {**own, **changes.get("data", {})}}


def test_a_student_learns_what_to_say_is_shown_and_loads_with_transformers_alone(tmp_path: Path) -> None:
    trained = {"model": tellers.folder(tmp_path / "teacher"),
               "train": {"max_steps": 40, "batch_size": 6, "learning_rate": 5e-3, "precision": "float32", "dropout": 0.0}}
    ask = recipe(tmp_path, teacher=trained, student={"layers": {"text": 1}, "freeze": ["vision"]})
    run = stilla.distill({**ask, "distill": {**QUICK["distill"], "max_steps": 25}})
    assert (run.scores.metric, run.scores.split) == ("rougeL", "validation")
    said = {name: one.quality["validation"] for name, one in run.scores.subjects.items()}
    assert said["teacher"]["perplexity"].value < 1.7
    assert said["student"]["perplexity"].value < 1.7  # of 281 tokens
    assert run.scores.student.kl is not None
    shown = Scores.load(run.folder / "scores.json").flips
    assert all(isinstance(view_of(one.shown), Picture) for one in shown)
    assert run.report.stat().st_size < 10e6
    assert ("data:image/png;base64," in run.report.read_text(encoding="utf-8")) == bool(shown)
    model, processor = AutoModelForImageTextToText.from_pretrained(run.student), AutoProcessor.from_pretrained(run.student)
    assert (model.config.text_config.num_hidden_layers, model.config.vision_config.num_hidden_layers) == (1, 2)
    seen = datasets.Image().decode_example({"bytes": picture(1), "path": None})
    asked = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], add_generation_prompt=True)
    inputs = processor(images=[seen], text=asked, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    assert processor.decode(written, skip_special_tokens=True).startswith("a ")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (run.student, run.folder / "teacher"))
    tower = [name for name in ours if ".vision_tower." in f".{name}"]
    assert tower
    assert all(torch.equal(ours[name], theirs[name]) for name in tower)


def test_unlabelled_pictures_adapters_and_towers_of_other_sizes_go_through_a_run(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "more").mkdir(exist_ok=True)
        (tmp_path / "more" / f"{number}.png").write_bytes(picture(number + 90))
    smaller = tellers.folder(tmp_path / "smaller", layers=1, size=16, seed=1)
    ask = recipe(tmp_path, data={"unlabelled": str(tmp_path / "more")}, student={"model": smaller},
                 completions={"by": "teacher", "of": "unlabelled", "max_new_tokens": 4})
    terms = [{"kind": "labels"}, {"kind": "logits"}, {"kind": "hidden", "pooling": "mean"}]
    run = stilla.distill({**ask, "distill": {**QUICK["distill"], "objectives": terms}})
    assert run.scores.learnt["unlabelled"] == 3
    lora = recipe(tmp_path, student={"layers": {"text": 1}, "lora": {"r": 2}}, output=str(tmp_path / "lora"),
                  evaluate={**QUICK["evaluate"], "speed": True})
    scores = stilla.distill(lora).scores
    assert scores.student.quality["validation"]["perplexity"].value > 1
    assert scores.student.cost is not None
    assert scores.student.cost.latency_median_ms


def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path)))
    assert not found.problems, found.problems
    smaller = tellers.folder(tmp_path / "smaller", layers=1, size=16, seed=1)
    hidden = {**QUICK["distill"], "objectives": [{"kind": "hidden"}]}
    fewer: dict[str, Any] = {"layers": {"text": 1}, "vocabulary": {"tokens": 200}}
    for changes, words in (
        ({"student": {"layers": 1}}, r"has vision \(2 layers\), text \(2 layers\)"),
        ({"student": fewer}, r"told by number which tokens stand for pictures"),
        ({"export": ["onnx"], "teacher": tellers.folder(tmp_path / "gemma", "gemma3")},
         r"onnx: a Gemma3ForConditionalGeneration cannot be written: `token_type_ids` tell it"),
        ({"student": {"model": smaller}, "distill": hidden}, r"pooling: mean"),
    ):
        found = check(from_options(recipe(tmp_path, **changes)))
        assert any(re.search(words, one) for one in found.problems), (words, found.problems)
