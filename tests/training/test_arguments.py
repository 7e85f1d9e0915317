import dataclasses

import pytest
import torch
from transformers import TrainingArguments
from transformers.integrations import integration_utils

from stilla.errors import RecipeError
from stilla.recipe import Training
from stilla.training.arguments import INSTEAD, REFUSED, precision_of, problems, training_arguments

METRICS = {"pearson": True, "rmse": False}


def made(tmp_path, **keys):
    return training_arguments(Training(**keys), output_dir=tmp_path, seed=7, metrics=METRICS)


def refused(tmp_path, **fields):
    with pytest.raises(RecipeError) as caught:
        made(tmp_path, trainer=fields)
    return str(caught.value)


def test_the_recipes_keys_reach_transformers(tmp_path):
    args = made(tmp_path, epochs=2, batch_size=8, accumulate=4, learning_rate=1e-3, warmup=0.1,
                weight_decay=0.2, max_steps=50)
    assert (args.num_train_epochs, args.train_batch_size, args.gradient_accumulation_steps) == (2, 8, 4)
    assert (args.learning_rate, args.weight_decay, args.max_steps, args.seed) == (1e-3, 0.2, 50, 7)
    assert args.get_warmup_steps(50) == 5
    assert args.output_dir == str(tmp_path)


def test_what_would_hide_or_break_something_is_off(tmp_path):
    args = made(tmp_path)
    assert not args.logging_nan_inf_filter
    assert not args.remove_unused_columns
    assert args.ddp_find_unused_parameters is False
    assert args.report_to == []
    assert args.disable_tqdm


@pytest.mark.parametrize(
    ("given", "field", "meant"),
    [
        ({"report_to": "tensorboard"}, "report_to", ["tensorboard"]),
        ({"report_to": ["none"]}, "report_to", []),
        ({"adam_epsilon": "1e-6"}, "adam_epsilon", 1e-6),
        ({"logging_steps": "10"}, "logging_steps", 10),
        ({"eval_strategy": "no"}, "eval_strategy", "no"),
        ({"eval_strategy": False}, "eval_strategy", "no"),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type", "cosine"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs", {"num_cycles": 2}),
        ({"max_grad_norm": 0.5}, "max_grad_norm", 0.5),
    ],
)
def test_fields_of_transformers_are_taken_in_their_own_types(tmp_path, given, field, meant):
    assert getattr(made(tmp_path, trainer=given), field) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rat": 1}, "no such field. Did you mean learning_rate?"),
        ({"loging_steps": 1}, "no such field. Did you mean logging_steps?"),
        ({"num_train_epochs": 1}, "the recipe says it by a key of its own: distill.epochs"),
        ({"output_dir": "x"}, "the recipe says it by a key of its own: output"),
        ({"batch_size": 1}, "stands one level higher: distill.batch_size"),
        ({"remove_unused_columns": True}, "cannot be set: Stilla makes its batches itself"),
        ({"label_smoothing_factor": 0.1}, "would change nothing"),
        ({"logging_steps": True}, "got true; expected a number"),
        ({"max_grad_norm": "x"}, 'got "x"; expected a number'),
        ({"lr_scheduler_type": "cosin"}, "Did you mean cosine?"),
        ({"report_to": "tensorbord"}, "Did you mean tensorboard?"),
        ({"report_to": 3}, "expected the name of a tracker"),
        ({"load_best_model_at_end": True, "metric_for_best_model": "rsme"}, "expected pearson or rmse. Did you mean rmse?"),
        ({"dataloader_in_order": False}, "it would change nothing"),
        ({"neftune_noise_alpha": 5}, "it does not reach the student"),
        ({"save_steps": 1.5}, "save_steps: got 1.5; expected a whole number from 1"),
    ],
)
def test_a_field_that_cannot_be_meant_is_refused(tmp_path, given, said):
    message = refused(tmp_path, **given)
    assert message.startswith("distill.trainer")
    assert said in message


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    assert "not installed; pip install mlflow" in refused(tmp_path, report_to=["mlflow"])


def test_wrong_fields_are_named_at_once(tmp_path):
    assert refused(tmp_path, seed=1, optim="adam", foo=2).startswith("3 problems:")
    assert len(problems(Training(trainer={"seed": 1, "optim": "adam", "adam_beta1": 0.8}), "teacher.train")) == 2


def test_reserved_fields_exist_in_transformers():
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert fields >= {*INSTEAD, *REFUSED}
    assert {*INSTEAD.values()} <= {*Training.model_fields, "output", "seed"}


@pytest.mark.parametrize(("native", "meant"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_what_the_processor_computes_natively(monkeypatch, native, meant):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert precision_of(Training()) == meant
    assert precision_of(Training(precision="float32")) == "float32"


def test_bfloat16_is_asked_of_transformers(tmp_path):
    assert made(tmp_path, precision="bfloat16").bf16
    assert not made(tmp_path, precision="float32").bf16


def test_the_best_checkpoint_is_the_lowest_where_lower_is_better(tmp_path):
    headline, named, asked = (
        made(tmp_path, trainer={"load_best_model_at_end": True, **more})
        for more in ({}, {"metric_for_best_model": "eval_rmse"}, {"metric_for_best_model": "rmse", "greater_is_better": True})
    )
    assert (headline.metric_for_best_model, headline.greater_is_better) == ("pearson", True)
    assert (named.metric_for_best_model, named.greater_is_better) == ("rmse", False)
    assert asked.greater_is_better
    assert headline.eval_strategy == headline.save_strategy


def test_a_scheduler_that_waits_goes_by_the_headline(tmp_path):
    """Left to itself, transformers takes a loss that is not measured here."""
    args = made(tmp_path, trainer={"lr_scheduler_type": "reduce_lr_on_plateau"})
    assert (args.metric_for_best_model, args.greater_is_better) == ("pearson", True)
    assert made(tmp_path, trainer={"lr_scheduler_type": "cosine"}).metric_for_best_model is None
