"""Weights are spread as asked, or the training is refused with what to do; checkpoints are continued as they can be."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.integrations import deepspeed

from stilla.check import check
from stilla.errors import CompatibilityError, RecipeError
from stilla.recipe import Recipe, Training
from stilla.training.arguments import problems, training_arguments
from stilla.training.continuing import MADE, Made, checkpoint_of, refuse_unlike
from stilla.training.plain import save_plain
from stilla.training.spreading import asked_for, preparing, spreading_problems
from tests import tiny
from tests.training.setting import arguments, classifier, trainer

METRICS = {"accuracy": True}


def asked(**more: Any) -> Any:
    return SimpleNamespace(**{"fsdp": None, "fsdp_config": None, "deepspeed": None, "world_size": 2, **more})


# --- refused, with what to do instead ---


@pytest.mark.parametrize(("args", "optimizer", "said"), [
    (asked(fsdp=True, world_size=1), None, "this is the only one. Start several"),
    (asked(fsdp=True, fsdp_config={"version": 1}), None, "version 1 flattens .* Leave `version` at 2"),
    (asked(fsdp=True), torch.optim.SGD([torch.zeros(1)]), "optimizers: .* Use optimizer_cls_and_kwargs"),
])
def test_what_cannot_be_spread_is_refused(args: Any, optimizer: Any, said: str) -> None:
    (problem,) = spreading_problems(args, (optimizer, None))
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(problem)


def test_nothing_is_wrong_with_what_nobody_asked_for_and_with_what_works() -> None:
    assert spreading_problems(asked(world_size=1), (None, None)) == []
    assert spreading_problems(asked(fsdp=True, fsdp_config={"version": 2}), (None, None)) == []


def test_a_launcher_asks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(asked()) is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert asked_for(asked()) == "fsdp"
    (problem,) = spreading_problems(asked(), (None, None))
    assert "version 1" in problem  # accelerate's default
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert spreading_problems(asked(), (None, None)) == []


def test_a_trainer_that_would_train_as_if_nobody_had_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"args.fsdp: .* this is the only one"):
        trainer(tmp_path, args=arguments(tmp_path, fsdp=True))


def test_processes_that_would_each_train_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CompatibilityError, match=r"2 processes were started, .* know of one.*use_cpu=True"):
        trainer(tmp_path, args=args)
    monkeypatch.setenv("WORLD_SIZE", "1")
    trainer(tmp_path, args=args)


def test_deepspeed_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = problems(Training(trainer={"deepspeed": {"zero_optimization": {"stage": 2}}}), "distill")
    assert problem.startswith("distill.trainer.deepspeed: DeepSpeed is not installed; pip install")


def test_a_recipe_that_spreads_over_processors_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    training = {"epochs": 1, "trainer": {"fsdp": True, "fsdp_config": {"version": 1}}}
    found = check(Recipe.model_validate(tiny.recipe(tmp_path, distill=training)))
    said = [one for one in found.problems if "fsdp" in one]
    assert len(said) == 2
    assert "accelerate spreads weights over accelerators only" in said[0]
    assert "distill.trainer.fsdp_config: version 1" in said[1]


def test_what_a_training_names_and_is_not_there_is_a_mistake_of_the_recipe(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none.json")
    for fields in ({"fsdp": True, "fsdp_config": nowhere}, {"deepspeed": nowhere}):
        with pytest.raises(RecipeError, match=r"distill.trainer: .*(none.json|deepspeed)"):
            training_arguments(Training(trainer=fields), output_dir=tmp_path, seed=0, metrics=METRICS)


def test_fsdp_is_a_field_that_is_true(tmp_path: Path) -> None:
    made = training_arguments(Training(trainer={"fsdp": True}), output_dir=tmp_path, seed=0, metrics=METRICS)
    assert made.fsdp is True


def test_a_student_that_is_spread_already_is_refused(tmp_path: Path) -> None:
    student = classifier()
    next(student.parameters()).ds_tensor = torch.zeros(1)  # type: ignore[attr-defined]
    with pytest.raises(CompatibilityError, match="spread over processes already"):
        trainer(tmp_path, student=student)


# --- what one training leaves to the next ---


def test_what_one_training_asks_for_is_not_asked_for_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("FSDP_VERSION", "2")
    with preparing():
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        os.environ["FSDP_VERSION"] = "1"
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert os.environ["FSDP_VERSION"] == "2"


def test_models_are_loaded_whole_whatever_the_arguments_say_of_zero(tmp_path: Path) -> None:
    class Config:
        def is_zero3(self) -> bool:
            return True

    config = Config()
    deepspeed.set_hf_deepspeed_config(config)
    try:
        assert deepspeed.is_deepspeed_zero3_enabled()
        trainer(tmp_path)
        assert not deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()


# --- checkpoints ---


def checkpoint(folder: Path, **made: Any) -> Path:
    path = folder / "checkpoint-2"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text("{}")
    if made:
        (path / MADE).write_text(json.dumps({"processes": 2, "batch_size": 4, "accumulate": 1, "spread": None, **made}))
    return path


@pytest.mark.parametrize(("made", "said"), [
    ({"accumulate": 2}, r"2 processes, 16 examples a step \(2 processes × batch size 4 × accumulate 2\); here are one "
                        r"process, 8 examples .* Start 2 processes again, let the three numbers make 16"),
    ({"spread": "fsdp"}, "made with `fsdp`, and its optimizer can only be read so. Continue with `fsdp`"),
])
def test_a_checkpoint_of_other_steps_is_refused(made: dict[str, Any], said: str, tmp_path: Path) -> None:
    place = checkpoint(tmp_path, **made)
    for way in (str(place), True):
        assert checkpoint_of(way, arguments(tmp_path)) == place
    with pytest.raises(CompatibilityError, match=said):
        refuse_unlike(place, arguments(tmp_path))


def test_deepspeeds_checkpoint_is_for_as_many_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = checkpoint(tmp_path, spread="deepspeed")
    monkeypatch.setattr(Made, "by", lambda args: Made(4, 2, 1, "deepspeed"))
    with pytest.raises(CompatibilityError, match=r"a part for each of 2 processes, and here are 4. Start 2 again"):
        refuse_unlike(place, arguments(tmp_path))


@pytest.mark.parametrize("made", [{}, {"processes": 2, "batch_size": 4}, {"processes": 1, "batch_size": 2, "accumulate": 4}])
def test_a_checkpoint_of_as_large_steps_is_continued(made: dict[str, Any], tmp_path: Path) -> None:
    refuse_unlike(checkpoint(tmp_path, **made), arguments(tmp_path))
    for way in (None, False, True):
        assert checkpoint_of(way, arguments(tmp_path / "none")) is None


@pytest.mark.slow
def test_a_checkpoint_says_how_it_was_made(tmp_path: Path) -> None:
    made = trainer(tmp_path, args=arguments(tmp_path, save_strategy="steps", save_steps=1, gradient_accumulation_steps=2))
    made.train()
    assert Made.read(tmp_path / "checkpoint-1") == Made(1, 8, 2, None)


# --- saving ---


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


def test_gathered_weights_of_a_plain_module_are_saved_once(tmp_path: Path) -> None:
    weight = torch.arange(9.0).reshape(3, 3)
    save_plain(Tied(), tmp_path, {"first.weight": weight, "second.weight": weight})
    assert {name: one.tolist() for name, one in load_file(tmp_path / "model.safetensors").items()} == {
        "first.weight": weight.tolist()}
