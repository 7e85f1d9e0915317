"""What a Trainer user does with a trainer: measure, predict, save, continue, choose an optimizer; and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from stilla import CompatibilityError, DistillationTrainer, Term
from stilla.objectives import Hidden, Labels, Logits
from stilla.recipe import Lora
from stilla.students import Student, with_adapters
from stilla.training import options
from tests import tiny
from tests.equivalence.language import trainer as language_trainer
from tests.equivalence.setting import distance, weights
from tests.tasks import pairs
from tests.tasks.tiny_lm import byte_tokenizer, llama, sentences
from tests.training.setting import arguments, classifier, losses, tokenised, trainer


def refused(folder: Path, said: str, options: dict[str, Any] | None = None, **more: Any) -> None:
    with pytest.raises(CompatibilityError, match=said):
        trainer(folder, options=options, **more)


# --- the lists ---


def test_every_field_argument_and_method_of_transformers_is_in_one_list() -> None:
    fields = [field.name for field in dataclasses.fields(TrainingArguments)]
    ours = [*options.REFUSED, *options.OURS, *options.HANDED_ON]
    assert sorted(fields) == sorted(ours)
    keywords = [*inspect.signature(Trainer.__init__).parameters][1:]
    assert sorted(keywords) == sorted([*options.KEYWORDS, *options.REFUSED_KEYWORDS])
    methods = [name for name, _ in inspect.getmembers(Trainer, callable) if not name.startswith("_")]
    listed = [*options.METHODS, *options.REFUSED_METHODS, *options.INNER]
    assert sorted(methods) == sorted(listed)


def test_arguments_that_work_are_arguments(tmp_path: Path) -> None:
    assert {*options.KEYWORDS} <= {*inspect.signature(DistillationTrainer.__init__).parameters}


def test_defaults_are_never_refused(tmp_path: Path) -> None:
    assert options.argument_problems(TrainingArguments(str(tmp_path))) == []
    assert options.argument_problems(TrainingArguments(str(tmp_path), label_names=["labels"])) == []
    kept = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    assert options.argument_problems(TrainingArguments(str(tmp_path), accelerator_config=kept)) == []


OTHERWISE: dict[str, Any] = {
    "label_names": ["start_positions"], "dataloader_drop_last": True, "prediction_loss_only": True,
    "eval_do_concat_batches": False, "eval_use_gather_object": True, "eval_accumulation_steps": 2, "bf16_full_eval": True,
    "fp16_full_eval": True, "include_for_metrics": ["inputs"], "batch_eval_metrics": True,
    "average_tokens_across_devices": False, "label_smoothing_factor": 0.1, "push_to_hub": True, "hub_token": "x",
    "hub_model_id": "x", "hub_strategy": "end", "hub_private_repo": True, "hub_always_push": True, "hub_revision": "x",
    "dataloader_persistent_workers": True, "dataloader_multiprocessing_context": "fork", "dataloader_in_order": False,
    "include_num_input_tokens_seen": "all", "length_column_name": "size", "accelerator_config": {"split_batches": True},
    "neftune_noise_alpha": 5.0, "use_liger_kernel": True, "liger_kernel_config": {"rope": True}, "auto_find_batch_size": True,
    "parallelism_config": object(),
}  # fmt: skip
"""A value of every refused field that is not its default."""


@pytest.mark.parametrize("name", options.REFUSED)
def test_a_field_that_would_do_nothing_or_harm_is_refused_by_name(tmp_path: Path, name: str) -> None:
    args = arguments(tmp_path)
    refusable = OTHERWISE[name]
    if name == "accelerator_config":
        args = arguments(tmp_path, accelerator_config=refusable)
    else:
        setattr(args, name, refusable)  # some need a machine, or a network, to be made
    with pytest.raises(CompatibilityError) as caught:
        trainer(tmp_path, args=args)
    assert str(caught.value).startswith(f"args.{name}: got ")
    assert options.REFUSED[name] in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_init": classifier}, "model_init: a new student for every training"),
        ({"compute_loss_func": print}, "compute_loss_func: the loss comes from `terms`"),
        ({"model": None}, "model: the student is the first argument"),
        ({"compute_metric": print}, "compute_metric: there is no such argument. Did you mean compute_metrics"),
    ],
)
def test_an_argument_that_has_no_place_is_refused_by_name(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    refused(tmp_path, said, **given)


@pytest.mark.parametrize("method", options.REFUSED_METHODS)
def test_a_method_that_would_do_something_else_is_refused_by_name(tmp_path: Path, method: str) -> None:
    with pytest.raises(CompatibilityError, match=f"^{method}: "):
        getattr(trainer(tmp_path), method)()


def test_a_strategy_of_sampling_that_balances_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "batch_rebalance.*expected random, group_by_length or sequential",
            {"train_sampling_strategy": "batch_rebalance"})


# --- measures ---


def test_own_measures_see_logits_and_labels_in_the_datas_order(tmp_path: Path) -> None:
    seen: list[EvalPrediction] = []

    def mine(said: EvalPrediction) -> dict[str, Any]:
        seen.append(said)
        return {"mine": np.float64(len(said.label_ids)), "accuracy": 0.25}

    made = trainer(tmp_path, evaluated=tokenised(), compute_metrics=mine)
    got = made.evaluate()
    assert (got["eval_mine"], got["eval_accuracy"]) == (20, 0.25)
    assert "eval_macro_f1" in got
    with torch.no_grad():
        for index in (0, 7, 19):
            batch = made.eval_dataset.collate([index])
            assert seen[0].predictions[index] == pytest.approx(made.student(**batch.student).logits[0].numpy(), abs=1e-5)
            assert seen[0].label_ids[index] == batch.labels.item()


@pytest.mark.slow
def test_the_best_checkpoint_may_go_by_a_measure_of_ones_own(tmp_path: Path) -> None:
    values = iter([1.0, 3.0, 2.0])
    made = trainer(
        tmp_path, evaluated=tokenised(), compute_metrics=lambda said: {"mine": next(values)},
        options={"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
                 "load_best_model_at_end": True, "metric_for_best_model": "mine"})
    made.train()
    assert (made.state.best_metric, made.state.best_global_step) == (3.0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "seq2seq", "masked"])
def test_measures_over_a_vocabulary_get_all_logits(tmp_path: Path, kind: str) -> None:
    made = language_trainer(kind, tmp_path)
    found = made.predict(made.train_dataset)
    there = found.label_ids != -100
    used = torch.from_numpy(found.predictions)[..., : made.task.classes].log_softmax(-1)
    chosen = used.gather(-1, torch.from_numpy(np.where(there, found.label_ids, 0)).unsqueeze(-1)).squeeze(-1)
    assert used.shape[:2] == found.label_ids.shape
    assert found.metrics["test_perplexity"] == pytest.approx(float((-chosen[torch.from_numpy(there)]).mean().exp()), rel=1e-4)


def test_labels_of_a_causal_model_come_back_as_they_were(tmp_path: Path) -> None:
    ids = [byte_tokenizer()(text)["input_ids"] for text in sentences(5)]
    data = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
    made = DistillationTrainer(llama(), terms=[Term(Labels())], train_dataset=data, args=arguments(tmp_path),
                               data_collator=DataCollatorForSeq2Seq(byte_tokenizer()),
                               preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))
    found = made.predict(data)
    assert found.predictions.shape == found.label_ids.shape
    assert [one[one != -100].tolist() for one in found.label_ids] == ids
    shifted = (found.predictions[:, :-1] == found.label_ids[:, 1:])[found.label_ids[:, 1:] != -100]
    assert found.metrics["test_token_accuracy"] == pytest.approx(shifted.mean())


def test_predictions_are_transformers_own(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    expected = Trainer(made.student, arguments(tmp_path), processing_class=tiny.tokenizer()).predict(tokenised())
    found = made.predict(tokenised())
    assert found.predictions == pytest.approx(expected.predictions, abs=1e-5)
    assert found.label_ids.tolist() == expected.label_ids.tolist()
    assert found.metrics["test_accuracy"] == (expected.predictions.argmax(-1) == expected.label_ids).mean()


def test_logits_that_are_reduced_to_no_tensor_are_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path, preprocess_logits_for_metrics=lambda logits, labels: logits.tolist())
    with pytest.raises(CompatibilityError, match="preprocess_logits_for_metrics gave a list"):
        made.predict(tokenised())


def test_loaders_give_the_data_in_order(tmp_path: Path) -> None:
    made = trainer(tmp_path, evaluated={"a": tokenised(10), "b": tokenised()})
    for loader in (made.get_eval_dataloader("a"), made.get_test_dataloader(tokenised(10))):
        assert [key for batch in loader for key in batch.keys_.tolist()] == [*range(10)]


BEST: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
                        "load_best_model_at_end": True}


def test_what_the_best_checkpoint_goes_by_is_a_measure_that_there_is(tmp_path: Path) -> None:
    refused(tmp_path, "got 'loss' .transformers' default.; expected accuracy, macro_f1", BEST, evaluated=tokenised())
    refused(tmp_path, "got 'acuracy'.*Did you mean accuracy", {**BEST, "metric_for_best_model": "acuracy"},
            evaluated=tokenised())
    refused(tmp_path, "got 'accuracy'; expected a_accuracy, a_macro_f1", {**BEST, "metric_for_best_model": "accuracy"},
            evaluated={"a": tokenised()})
    refused(tmp_path, "got 'loss'", {"eval_strategy": "steps", "eval_steps": 1, "lr_scheduler_type": "reduce_lr_on_plateau"},
            evaluated=tokenised())
    refused(tmp_path, "eval_strategy: got 'steps', and there is no eval_dataset", {"eval_strategy": "steps", "eval_steps": 1})


@pytest.mark.slow
def test_less_is_better_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = tokenised().map(lambda row: {"label": float(row["label"])})
    terms = [Term(Labels())]
    with caplog.at_level(logging.WARNING):
        made = trainer(tmp_path, numbers, student=classifier(labels=1), terms=terms, evaluated=numbers,
                       options={**BEST, "max_steps": 3, "metric_for_best_model": "rmse"})
    assert "of rmse, less is better" in caplog.text
    made.train()
    assert made.state.best_metric == min(entry["eval_rmse"] for entry in made.state.log_history if "eval_rmse" in entry)


@pytest.mark.slow
def test_an_undefined_measure_is_worse_than_any_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = tokenised().map(lambda row: {"label": float(row["label"])})
    equal = numbers.map(lambda row: {"label": 0.5})
    with caplog.at_level(logging.WARNING):
        made = trainer(tmp_path, numbers, student=classifier(labels=1), terms=[Term(Labels())], evaluated=equal,
                       callbacks=[EarlyStoppingCallback(2)],
                       options={**BEST, "max_steps": 5, "metric_for_best_model": "pearson"})
        made.train()
    assert made.state.global_step == 3  # after the first, twice no better
    assert made.state.best_global_step in (None, 0)
    entries = [entry for entry in made.state.log_history if "eval_rmse" in entry]
    assert entries
    assert not any("eval_pearson" in entry for entry in entries)
    assert caplog.text.count("eval_pearson is not defined on these data") == 1
    assert "worse than any that is defined (metric_for_best_model)" in caplog.text
    assert np.isnan(made.evaluate()["eval_pearson"])


# --- saving ---


@pytest.mark.slow
def test_what_is_saved_is_the_student_that_from_pretrained_loads(tmp_path: Path) -> None:
    made = trainer(tmp_path / "out", terms=[Term(Labels()), Term(Hidden())], teacher=classifier(layers=2, hidden_size=24))
    made.train()
    made.save_model(str(tmp_path / "saved"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert distance(again.state_dict(), made.student.state_dict()) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tiny.tokenizer().get_vocab()
    made.save_model()
    assert (tmp_path / "out" / "config.json").is_file()


def test_adapters_are_merged_into_what_is_saved(tmp_path: Path) -> None:
    student = with_adapters(Student(classifier(layers=2, seed=1), {}), Lora(r=2)).model
    made = trainer(tmp_path, student=student)
    made.train()
    made.save_model(str(tmp_path / "saved"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    batch = made.train_dataset.collate([0, 1])
    with torch.no_grad():
        assert again(**batch.student).logits == pytest.approx(made.student.eval()(**batch.student).logits, abs=1e-5)


def test_a_model_of_ones_own_is_saved_as_its_weights(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.EmbeddingBag(60, 8)
            self.head = torch.nn.Linear(8, 2)

        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(self.words(input_ids))}

    task = trainer(tmp_path).task
    made = DistillationTrainer(Own(), classifier(), terms=[Term(Logits())], train_dataset=tokenised(), task=task,
                               args=arguments(tmp_path), processing_class=tiny.tokenizer())
    made.train()
    made.save_model(str(tmp_path / "saved"))
    assert distance(load_file(tmp_path / "saved" / "model.safetensors"), made.student.state_dict()) == 0


def test_the_collators_tokenizer_is_saved_where_no_other_is_given(tmp_path: Path) -> None:
    made = trainer(tmp_path, processing_class=None, data_collator=DataCollatorWithPadding(tiny.tokenizer()))
    made.save_model(str(tmp_path / "saved"))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tiny.tokenizer().get_vocab()


def test_a_model_that_writes_is_saved_with_its_cache_on(tmp_path: Path) -> None:
    made = language_trainer("seq2seq", tmp_path)
    made.save_model(str(tmp_path / "saved"))
    assert type(made.student).from_pretrained(tmp_path / "saved").config.use_cache
    assert pairs.model("t5").config.use_cache


def test_continuing_from_a_saved_student_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.save_model(str(tmp_path / "saved"))
    with pytest.raises(CompatibilityError, match=r"is no checkpoint of a trainer.*load it with from_pretrained"):
        made.train(resume_from_checkpoint=str(tmp_path / "saved"))


@pytest.mark.slow
def test_the_last_checkpoint_is_found(tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, options=options)
    whole.train()
    (tmp_path / "checkpoint-4").rename(tmp_path / "later")
    rest = trainer(tmp_path, options=options)
    rest.train(resume_from_checkpoint=True)
    assert distance(weights(whole), weights(rest)) == 0


def test_reports_of_a_training_are_written(tmp_path: Path) -> None:
    made = trainer(tmp_path, evaluated=tokenised())
    said = made.train()
    made.log_metrics("train", said.metrics)
    made.save_metrics("train", said.metrics)
    made.save_state()
    made.create_model_card(model_name="small")
    assert {"train_results.json", "trainer_state.json", "README.md"} <= {path.name for path in tmp_path.iterdir()}
    assert made.get_num_trainable_parameters() == sum(one.numel() for one in made.student.parameters())


# --- optimizers, schedulers, callbacks ---


def rates(made: DistillationTrainer) -> list[float]:
    return [entry["learning_rate"] for entry in made.state.log_history if "learning_rate" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}, "warmup_steps": 1},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.3}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 1e-4}},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5}},
    ],
    ids=lambda options: options["lr_scheduler_type"],
)
def test_schedulers_with_their_arguments_are_transformers_own(tmp_path: Path, options: dict[str, Any]) -> None:
    more = {"max_steps": 6, **options, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "eval_same"}

    def same(said: EvalPrediction) -> dict[str, float]:
        return {"same": 1.0}

    made = trainer(tmp_path, evaluated=tokenised(), compute_metrics=same, options=more)
    other = Trainer(classifier(), arguments(tmp_path, **more), train_dataset=tokenised(), eval_dataset=tokenised(),
                    processing_class=tiny.tokenizer(), compute_metrics=same)
    made.train()
    other.train()
    assert rates(made) == rates(other)
    assert len({*rates(made)}) > 1


@pytest.mark.slow
def test_an_optimizer_and_a_scheduler_of_ones_own_are_used(tmp_path: Path) -> None:
    student = classifier()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    made = trainer(tmp_path, student=student, optimizers=(optimizer, scheduler), options={"max_steps": 3})
    before = weights(made)
    made.train()
    assert rates(made) == [0.1, 0.05, 0.025]
    assert distance(before, weights(made)) > 0
    alone = classifier()
    made = trainer(tmp_path, student=alone, optimizers=(torch.optim.SGD(alone.parameters(), lr=0.1), None),
                   options={"lr_scheduler_type": "constant"})
    made.train()
    assert rates(made) == [0.1, 0.1]


def test_a_class_of_optimizer_holds_the_terms_parameters_too(tmp_path: Path) -> None:
    made = trainer(tmp_path, terms=[Term(Hidden())], teacher=classifier(layers=2, hidden_size=24),
                   optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}))
    made.train()
    held = {id(one) for group in made.optimizer.param_groups for one in group["params"]}
    assert all(id(one) in held for one in made.model.parameters())
    assert made.optimizer.param_groups[0]["momentum"] == 0.9


def test_an_optimizer_that_holds_too_little_is_refused(tmp_path: Path) -> None:
    student = classifier()
    mine = torch.optim.SGD(student.parameters(), lr=0.1)
    refused(tmp_path, "the optimizer holds none of the student's parameters", optimizers=(mine, None))
    refused(tmp_path, "a scheduler without its optimizer", student=student,
            optimizers=(None, torch.optim.lr_scheduler.StepLR(mine, 1)))
    refused(tmp_path, r"the terms have parameters of their own .*projections.*optimizer_cls_and_kwargs", student=student,
            terms=[Term(Hidden())], teacher=classifier(layers=2, hidden_size=24), optimizers=(mine, None))


def test_callbacks_are_called_and_may_be_classes(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            seen.append(type(model.student).__name__)

        def on_evaluate(self, args, state, control, metrics=None, **_):
            seen.append("eval_accuracy" if "eval_accuracy" in metrics else "")

        def on_predict(self, args, state, control, metrics=None, **_):
            seen.append("test_accuracy" if "test_accuracy" in metrics else "")

    made = trainer(tmp_path, evaluated=tokenised(), callbacks=[Watch])
    made.train()
    made.evaluate()
    made.predict(tokenised())
    assert seen == ["BertForSequenceClassification"] * 2 + ["eval_accuracy", "test_accuracy"]


@pytest.mark.slow
def test_an_evaluation_before_the_first_step_and_several_workers(tmp_path: Path) -> None:
    plain = trainer(tmp_path, evaluated=tokenised(), options={"eval_on_start": True, "eval_strategy": "epoch"})
    workers = trainer(tmp_path, options={"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3})
    plain.train()
    workers.train()
    assert "eval_accuracy" in plain.state.log_history[0]
    assert losses(plain) == losses(workers)


def test_one_process_uses_one_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(tmp_path)
    assert args.n_gpu == 0
    args._n_gpu = 2
    with caplog.at_level(logging.WARNING):
        made = trainer(tmp_path, args=args)
    assert "2 GPUs are here, and this process uses the first alone" in caplog.text
    assert made.args.n_gpu == 1
    assert made._train_batch_size == 8
