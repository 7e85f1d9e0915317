"""Stopping and continuing equals never having stopped, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    TrainerCallback,
)

from stilla.errors import TrainingError
from tests.equivalence.setting import bert, distance, losses, trainer, weights

pytestmark = pytest.mark.slow


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True
        return control


@pytest.mark.parametrize("stop", [2, 3, 4])  # within the first epoch, at its end, within the second
@pytest.mark.parametrize("accumulate", [1, 2])
def test_stop_and_resume_equals_uninterrupted(tmp_path: Path, stop: int, accumulate: int) -> None:
    options = {"dropout": 0.2, "optim": "adamw_torch", "per_device_train_batch_size": 8 // accumulate,
               "gradient_accumulation_steps": accumulate}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    first = trainer(tmp_path / "parts", callbacks=[StopAt(stop)], **options)
    first.train()
    assert first.state.global_step == stop
    torch.manual_seed(99)  # another process starts from another random state
    second = trainer(tmp_path / "parts", **options)
    torch.rand(17)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[stop:] == losses(whole)[stop:]


@pytest.mark.parametrize("steps", [5, 6])  # within an epoch, at its end
def test_a_training_that_was_over_is_not_gone_on_with(tmp_path: Path, steps: int) -> None:
    """Its process may have ended between the last checkpoint and what comes after it."""
    options = {"max_steps": steps, "save_strategy": "steps", "save_steps": steps, "lr_scheduler_type": "constant"}
    whole = trainer(tmp_path, **options)
    whole.train()
    again = trainer(tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert again.state.global_step == steps
    assert distance(weights(whole), weights(again)) == 0
    assert losses(again) == losses(whole)


def tied(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, num_labels=3, pad_token_id=0, tie_word_embeddings=True))
        # an alias that safetensors would refuse to store twice
        model.again = torch.nn.Linear(16, 50, bias=False)
        model.again.weight = model.model.embed_tokens.weight
        return model
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2,
                                                                n_heads=2, num_labels=3, max_position_embeddings=32))
    model.projector = torch.nn.Linear(16, 50, bias=False)
    model.projector.weight = model.distilbert.embeddings.word_embeddings.weight
    return model


@pytest.mark.parametrize("kind", ["distilbert", "llama"])
def test_a_tied_student_saves_resumes_and_reloads_its_best(tmp_path: Path, kind: str) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2,
               "load_best_model_at_end": True, "metric_for_best_model": "accuracy", "ddp_find_unused_parameters": True}
    made = trainer(tmp_path, student=tied(kind), **options)
    made.train()
    assert made.state.best_model_checkpoint is not None
    again = trainer(tmp_path, student=tied(kind), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert distance(weights(made), weights(again)) == 0
    named = dict(again.student.named_parameters(remove_duplicate=False))
    alias, owner = (("again.weight", "model.embed_tokens.weight") if kind == "llama" else
                    ("projector.weight", "distilbert.embeddings.word_embeddings.weight"))
    assert named[alias] is named[owner]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            if state.global_step == 3:
                with torch.no_grad():
                    model.student.classifier.weight.fill_(float("nan"))

    made = trainer(tmp_path, callbacks=[Poison()], save_strategy="steps", save_steps=1)
    with pytest.raises(TrainingError, match=r"not finite at step 4 \(labels, logits\).*examples"):
        made.train()
    saved = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert saved == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    good = trainer(tmp_path)
    good.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert all(torch.isfinite(tensor).all() for tensor in weights(good).values())


def test_weights_that_a_step_broke_are_never_saved(tmp_path: Path) -> None:
    class Poison(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **_):
            if state.global_step == 2:
                with torch.no_grad():
                    model.student.classifier.weight.fill_(float("inf"))

    made = trainer(tmp_path, callbacks=[Poison()], save_strategy="steps", save_steps=1)
    with pytest.raises(TrainingError, match=r"weights are not finite after step 3, though.*last checkpoint is good"):
        made.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        trainer(tmp_path / "other", callbacks=[Poison()], max_steps=3).train()


def test_who_asks_to_stop_does_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **_):
            if state.global_step == 2:
                signal.raise_signal(signal.SIGINT)

    made = trainer(tmp_path, callbacks=[Interrupt()], eval_strategy="epoch", max_steps=-1, num_train_epochs=2,
                   per_device_train_batch_size=4)
    with made.guard.interruptible():
        made.train()
    assert made.guard.stopping
    assert made.state.global_step == 3
    assert not any("eval_accuracy" in entry for entry in made.state.log_history)


def test_a_signal_after_the_last_step_is_not_swallowed(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_train_end(self, args, state, control, **_):
            signal.raise_signal(signal.SIGINT)

    made = trainer(tmp_path, callbacks=[Interrupt()])
    # shells start what runs in their background with this signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), made.guard.interruptible():
            made.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert made.state.global_step == 6


def test_the_evaluation_walks_the_data_in_its_order(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    said = made.evaluate()
    model = made.student.eval()
    right = 0
    for index in range(24):
        batch = made.train_dataset.collate([made.train_dataset.examples[index]])
        with torch.no_grad():
            right += (model(**batch.student).logits.argmax(-1) == batch.labels).item()
    assert said["eval_accuracy"] == pytest.approx(right / 24)


def test_bert_of_the_setting_has_dropout_where_asked() -> None:
    assert bert(16, 2, 0.2).config.hidden_dropout_prob == 0.2
