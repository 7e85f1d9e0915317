"""What is said of a student before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from stilla.run import distill
from stilla.stages import beginning
from tests import tiny

pytestmark = pytest.mark.slow


def recipe(folder: Path, student: dict[str, Any]) -> dict[str, Any]:
    made = tiny.recipe(folder, student=student, allow_weak_teacher=True)
    made["teacher"]["train"]["epochs"] = 1
    made["distill"] = {"max_steps": 1, "learning_rate": 1e-5, "precision": "float32"}
    made["evaluate"]["baseline"] = False
    return made


def test_a_start_is_measured_and_the_training_is_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = distill(recipe(tmp_path / "measured", {"layers": 2})).folder
    said = capsys.readouterr().err
    assert "student: before its first step its kl from the teacher is " in said
    assert "on 40 validation examples\n" in said  # nothing is wrong with it
    monkeypatch.setattr(beginning, "say_where", lambda *_: None)
    alone = distill(recipe(tmp_path / "alone", {"layers": 2})).folder
    assert (measured / "student" / "model.safetensors").read_bytes() == (alone / "student" / "model.safetensors").read_bytes()


def test_a_start_that_is_sure_and_wrong_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = Path(tiny.bert(tmp_path / "sure", layers=1))
    model = AutoModelForSequenceClassification.from_pretrained(start)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    model.save_pretrained(start)
    distill(recipe(tmp_path, {"model": str(start)}))
    assert "further than that of equal probabilities for all 3 classes (1.1 at most)" in capsys.readouterr().err
