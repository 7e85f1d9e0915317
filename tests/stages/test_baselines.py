"""The same training on labels alone: as long as a student's, measured as often, without what is a teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from stilla.recipe import Average, ObjectiveSpec, Stage
from stilla.stages.baselines import labels_alone
from stilla.training.arguments import training_arguments


def test_a_baseline_is_trained_as_the_student_but_goes_by_no_teacher() -> None:
    stage = Stage(epochs=4.0, patience=2, average=Average(ema=0.9), objectives=(ObjectiveSpec(kind="logits"),),
                  trainer={"metric_for_best_model": "eval_kl", "eval_steps": 5})
    alone = labels_alone(stage, 0.5)
    assert [one.kind for one in alone.objectives or ()] == ["labels"]
    assert (alone.epochs, alone.patience, alone.average, alone.trainer) == (2.0, 2, stage.average, {"eval_steps": 5})
    chosen = stage.model_copy(update={"trainer": {"metric_for_best_model": "macro_f1"}})
    assert labels_alone(chosen).trainer == {"metric_for_best_model": "macro_f1"}


@pytest.mark.parametrize(("trainer", "kept"), [
    ({}, True), ({"report_to": "tensorboard"}, True), ({"load_best_model_at_end": False}, False),
    ({"eval_strategy": "no"}, None), ({"save_strategy": "no"}, None), ({"save_steps": 0.5}, None), ({"fsdp": True}, None)])
def test_a_baseline_keeps_its_best_weights_unless_the_recipe_says_what_is_kept(
    trainer: dict[str, Any], kept: bool | None
) -> None:
    assert labels_alone(Stage(epochs=4.0, trainer=trainer)).trainer.get("load_best_model_at_end") is kept
    of_a_mean = labels_alone(Stage(epochs=4.0, average=Average(last=0.25)))
    of_one_evaluation = labels_alone(Stage(epochs=1.0), best=False)
    assert not any("load_best_model_at_end" in one.trainer for one in (of_a_mean, of_one_evaluation))


@pytest.mark.parametrize(("passes", "measured"), [(0.5, [40]), (1.0, [40]), (1.5, [20, 40]), (4.0, [10, 20, 30, 40])])
def test_a_baseline_that_passes_more_often_is_measured_as_often_as_its_student(
    tmp_path: Path, passes: float, measured: list[int]
) -> None:
    alone = labels_alone(Stage(epochs=passes, patience=3), 5.0, 40, passes=passes)
    args = training_arguments(alone, output_dir=tmp_path, seed=1, metrics={"accuracy": True})
    state = TrainerState()
    state.compute_steps(args, 40)
    every = [step for step in range(1, 41) if step % state.eval_steps == 0]
    assert sorted({*every, 40}) == measured  # at the end in any case
    assert args.save_steps == args.eval_steps
