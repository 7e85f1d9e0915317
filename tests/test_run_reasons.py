"""Whole runs that keep, and measure, what answers rest on."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from stilla.check import check
from stilla.recipe import Recipe
from stilla.run import Run
from stilla.run import run as go
from stilla.scores import Scores
from stilla.stages.reasons import _heated
from stilla.tasks.vision.pictures import data_uri
from stilla.views import Weights
from tests import tiny

pytestmark = pytest.mark.slow
QUICK = {"batch_size": 8, "precision": "float32"}


def recipe(folder: Path, **changes: Any) -> Recipe:
    made = {**tiny.recipe(folder), "allow_weak_teacher": True,
            "evaluate": {"baseline": True, "resamples": 100, "speed": False, "saliency": {"examples": 20, "steps": 4}},
            "distill": {**QUICK, "max_steps": 20, "learning_rate": 1e-3,
                        "objectives": [{"kind": "logits"}, {"kind": "saliency", "weight": 0.5}]}}
    made["teacher"]["train"] = {**QUICK, "epochs": 3, "learning_rate": 3e-3}
    made["data"]["augment"] = "none"
    return Recipe.model_validate({**made, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(recipe(tmp_path_factory.mktemp("reasons")))


def test_what_answers_rest_on_is_measured_with_its_ceiling(run: Run) -> None:
    found = run.scores.reasons
    assert found is not None
    assert (found.examples, found.steps) == (20, 4)
    assert found.agreement.keys() == {"student", "baseline"}
    assert found.ceiling is not None
    assert found.ceiling.value < 1  # another seed is another teacher
    assert (run.folder / "seeds" / "teacher-1" / "model.safetensors").is_file()
    assert any(note.startswith("saliency: Spearman's correlation") and "the ceiling" in note for note in run.scores.notes)
    assert Scores.load(run.folder / "scores.json").reasons == found


def test_examples_are_shown_with_both_attributions(run: Run) -> None:
    assert run.scores.reasons is not None
    assert len(run.scores.reasons.shown) == 6
    for one in run.scores.reasons.shown:
        assert isinstance(one.shown, Weights)
        assert one.shown.said.keys() == {"teacher", "student", "baseline"}
        assert one.shown.pieces[0] == "[CLS]"
        assert "[PAD]" not in one.shown.pieces
        assert max(map(abs, one.shown.said["teacher"])) == 1
    page = run.report.read_text(encoding="utf-8")
    assert "What answers rest on" in page
    assert 'style="background:rgba(230, 120, 30, ' in page


def test_check_refuses_what_cannot_be_explained(tmp_path: Path) -> None:
    made = recipe(tmp_path, cache={"form": "dense"})
    assert any("cache: it holds answers, and not what they rest on" in one for one in check(made).problems)
    other = tiny.bert(tmp_path / "other", layers=2)
    rules = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    words = rules["model"]["vocab"]
    rules["model"]["vocab"] = {word: number if number < 5 else len(words) + 4 - number for word, number in words.items()}
    file = tmp_path / "other" / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "model": rules["model"]}), encoding="utf-8")
    found = check(recipe(tmp_path, student={"model": other})).problems
    for place in ("distill.objectives[1] (saliency)", "evaluate.saliency"):
        assert any(one.startswith(f"{place}: compares position by position") for one in found)


def test_pictures_are_warm_where_cells_speak_for_the_class() -> None:
    uri = data_uri(PIL.Image.new("RGB", (40, 40), (128, 128, 128)), 40)
    made = _heated(uri, np.array([1.0, 0.0, 0.0, -1.0]), (2, 2))
    pixels = np.asarray(PIL.Image.open(BytesIO(base64.b64decode(made.partition(",")[2]))), int)
    assert pixels[2, 2, 0] > pixels[2, 2, 2] + 50  # warm
    assert pixels[37, 37, 2] > pixels[37, 37, 0] + 50  # cold
