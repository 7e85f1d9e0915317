"""What is said of a student before its first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from stilla import data, tasks
from stilla.recipe import Recipe
from stilla.run import distill
from stilla.stages import beginning
from stilla.stages.folder import RunFolder
from stilla.stages.place import Place
from stilla.tasks.base import Loaded
from tests import tiny
from tests.tasks.several import setting

LABELS = tuple("abcdef")


def recipe(folder: Path, student: dict[str, Any]) -> dict[str, Any]:
    made = tiny.recipe(folder, student=student, allow_weak_teacher=True)
    made["teacher"]["train"]["epochs"] = 1
    made["distill"] = {"max_steps": 1, "learning_rate": 1e-5, "precision": "float32"}
    made["evaluate"]["baseline"] = False
    return made


def indifferent(loaded: Loaded) -> Loaded:
    """The same with equal probabilities for everything."""
    for name, weight in loaded.model.named_parameters():
        if "classifier" in name:
            nn.init.zeros_(weight)
    return loaded


def sure(loaded: Loaded) -> Loaded:
    """The same, sure of the same for every example."""
    for name, bias in indifferent(loaded).model.named_parameters():
        if name.endswith("classifier.bias"):
            bias.data = torch.tensor([-30.0] * len(bias) if len(bias) == len(LABELS) else [30.0] + [0.0] * (len(bias) - 1))
    return loaded


def tags(folder: Path) -> dict[str, Any]:
    """A recipe of six labels, each of which applies or not."""
    folder.mkdir()
    files = {}
    for split in ("train", "validation"):
        files[split] = str(folder / f"{split}.jsonl")
        lines = [{"text": "the good bread", **{name: int(row == place) for place, name in enumerate(LABELS)}}
                 for row in range(8)]
        Path(files[split]).write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    made = tiny.tokenizer()
    config = BertConfig(vocab_size=len(made), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=64, id2label=dict(enumerate(LABELS)), label2id={},
                        problem_type="multi_label_classification")
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    made.save_pretrained(folder / "model")
    return {"task": "text-classification", "data": {**files, "label": list(LABELS)},
            "teacher": {"model": str(folder / "model")}}


def several(folder: Path) -> dict[str, Any]:
    own = {"topics": setting.topics(folder / "topics"), "words": setting.tagger(folder / "words")}
    return setting.recipe(folder, own=own)


def begun(folder: Path, plain: dict[str, Any]) -> tuple[Place, Loaded, Loaded]:
    """Where a run of the recipe is, a student and a teacher."""
    folder.mkdir(exist_ok=True)
    recipe = Recipe.model_validate({**plain, "student": {"layers": 1}, "output": str(folder / "run")})
    splits = data.load(recipe.data, seed=0)
    bound = tasks.of_recipe(recipe, splits)
    student, teacher = (bound.load(recipe.teacher, labelled=True) for _ in range(2))
    return Place(recipe, RunFolder(folder / "run"), splits, "", bound.adapted_to(teacher)), student, teacher


@pytest.mark.slow
@pytest.mark.parametrize("plain", [tags, several])
def test_equal_probabilities_are_no_wrong_start(
    tmp_path: Path, plain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is summed: the labels of an example, or the tasks that are learnt together."""
    place, student, teacher = begun(tmp_path, plain(tmp_path / "data"))
    beginning.say_where(place, indifferent(student), sure(teacher), place.recipe.distill[0])
    assert "its kl from the teacher is" in (said := capsys.readouterr().err)
    assert "further" not in said
    with torch.no_grad():
        for name, bias in student.model.named_parameters():
            if name.endswith("classifier.bias"):
                bias[-1] += 60.0
    beginning.say_where(place, student, teacher, place.recipe.distill[0])
    assert "further than" in capsys.readouterr().err


def test_models_that_do_not_fit_beside_each_other_are_trained_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An accelerator may hold what a training spreads over several, or a student whose teacher's answers are stored."""
    place, student, teacher = begun(tmp_path, tags(tmp_path / "data"))
    moved: list[Any] = []
    to = student.model.to

    def full(where: Any) -> nn.Module:
        moved.append(where)
        if len(moved) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return to(where)

    monkeypatch.setattr(student.model, "to", full)
    beginning.say_where(place, student, teacher, place.recipe.distill[0])
    assert len(moved) == 2  # back, whatever of it had arrived
    assert "not measured" in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_start_that_is_sure_and_wrong_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = Path(tiny.bert(tmp_path / "sure", layers=1))
    model = AutoModelForSequenceClassification.from_pretrained(start)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    model.save_pretrained(start)
    distill(recipe(tmp_path, {"model": str(start)}))
    assert "further than equal probabilities for all classes could be (1.1 at most)" in capsys.readouterr().err
