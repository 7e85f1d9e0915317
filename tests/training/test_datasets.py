"""Datasets as people have them: columns, formats, streams, several to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
)

from stilla import CompatibilityError, DataError, Term
from stilla.objectives import Labels, Logits
from tests import tiny
from tests.equivalence.setting import distance, weights
from tests.training.setting import arguments, classifier, losses, rows, tokenised, trainer


@pytest.mark.slow
def test_the_text_column_may_still_be_there(tmp_path: Path) -> None:
    kept, removed = (trainer(tmp_path, data) for data in (tokenised(), tokenised(remove_columns=["text"])))
    kept.train()
    removed.train()
    assert losses(kept) == losses(removed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "numpy", "columns"])
def test_a_format_changes_nothing(tmp_path: Path, kind: str) -> None:
    plain, formatted = tokenised(), tokenised()
    if kind == "columns":
        formatted.set_format("torch", columns=["input_ids", "attention_mask", "label"])
    else:
        formatted.set_format(kind)
    one, other = trainer(tmp_path, plain), trainer(tmp_path, formatted)
    one.train()
    other.train()
    assert losses(one) == losses(other)


@pytest.mark.slow
def test_examples_made_while_they_are_read_see_all_columns(tmp_path: Path) -> None:
    own = tiny.tokenizer()
    made = rows().with_transform(lambda batch: {**own(batch["text"]), "labels": batch["label"], "text": batch["text"]})
    one, other = trainer(tmp_path, made), trainer(tmp_path, tokenised(), group_by_length=False)
    one.train()
    other.train()
    assert losses(one) == losses(other)


@pytest.mark.slow
def test_lists_and_torch_datasets_are_taken(tmp_path: Path) -> None:
    listed = [dict(row) for row in tokenised()]
    one, other = trainer(tmp_path, listed), trainer(tmp_path, tokenised(), group_by_length=False)
    one.train()
    other.train()
    assert losses(one) == losses(other)


@pytest.mark.slow
@pytest.mark.parametrize("unused", [True, False])
def test_each_model_gets_the_inputs_that_it_takes(tmp_path: Path, unused: bool) -> None:
    """Token types are for BERT, and not for DistilBERT beside it."""
    torch.manual_seed(0)
    student = DistilBertForSequenceClassification(DistilBertConfig(
        vocab_size=len(tiny.tokenizer()), dim=16, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=64))
    types = [[0] * len(ids) for ids in tokenised()["input_ids"]]
    data = tokenised(remove_columns=["text"]).add_column("token_type_ids", types)
    made = trainer(tmp_path, data, student=student, options={"remove_unused_columns": unused})
    batch = made.train_dataset.collate([0, 1])
    assert sorted(batch.student) == ["attention_mask", "input_ids"]
    assert sorted(batch.teacher) == ["attention_mask", "input_ids", "token_type_ids"]
    made.train()
    assert len(losses(made)) == 2


def test_text_that_is_kept_is_named_where_it_cannot_be_padded(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"could not make a batch.*remove_columns\(\['text'\]\)"):
        trainer(tmp_path, options={"remove_unused_columns": False})


def test_two_columns_of_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="the columns 'labels' and 'label': which are the labels"):
        trainer(tmp_path, tokenised().add_column("labels", [0] * 20))


def test_columns_of_which_no_model_takes_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="'words' and 'kind', and neither model takes one"):
        trainer(tmp_path, rows().rename_columns({"text": "words", "label": "kind"}))


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the dataset is empty"):
        trainer(tmp_path, tokenised().select([]))


def test_data_without_labels_teach_what_the_teacher_says(tmp_path: Path) -> None:
    data = tokenised(remove_columns=["label"])
    made = trainer(tmp_path, data, terms=[Term(Logits())])
    made.train()
    assert len(losses(made)) == 2
    found = made.predict(data)
    assert found.label_ids is None
    assert found.metrics == {}
    assert found.predictions.shape == (20, 2)
    with pytest.raises(CompatibilityError, match="`labels` needs labels, and the dataset's batches have none"):
        trainer(tmp_path, data)


def test_examples_in_the_datas_own_order_where_that_is_asked(tmp_path: Path) -> None:
    made = trainer(tmp_path, options={"train_sampling_strategy": "sequential"})
    seen = [batch.keys_.tolist() for batch in made.get_train_dataloader()]
    assert seen == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]


# --- streams ---


class Lines(torch.utils.data.IterableDataset[Any]):
    """Of the dataset, once or as often as it is asked for."""

    def __init__(self, data: datasets.Dataset, times: int = 100) -> None:
        self.data = data
        self.times = times

    def __iter__(self) -> Iterator[Any]:
        self.times -= 1
        return iter([dict(row) for row in self.data] if self.times >= 0 else [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["datasets", "torch"])
def test_a_stream_is_the_dataset_in_its_order(tmp_path: Path, kind: str) -> None:
    data = tokenised(16)
    stream = data.to_iterable_dataset() if kind == "datasets" else Lines(data)
    streamed = trainer(tmp_path, stream, options={"max_steps": 4})
    whole = trainer(tmp_path, data, options={"max_steps": 4, "train_sampling_strategy": "sequential"})
    streamed.train()
    whole.train()
    assert streamed.state.global_step == 4  # twice through the data
    assert distance(weights(streamed), weights(whole)) == 0


@pytest.mark.slow
def test_a_stream_that_can_be_read_once_loses_nothing_to_looking_at_it(tmp_path: Path) -> None:
    made = trainer(tmp_path, Lines(tokenised(16), times=1))
    made.train()
    assert made.state.global_step == 2
    with pytest.raises(DataError, match="ended after 1 pass and gives nothing when it is read again"):
        trainer(tmp_path, Lines(tokenised(16), times=1), options={"max_steps": 3}).train()


@pytest.mark.slow
def test_four_micro_batches_of_a_stream_equal_one_batch(tmp_path: Path) -> None:
    """20 examples in steps of 8: the third step goes over the end."""
    options: dict[str, Any] = {"max_steps": 5, "optim": "sgd"}
    one = trainer(tmp_path, tokenised().to_iterable_dataset(), options=options)
    four = trainer(tmp_path, tokenised().to_iterable_dataset(),
                   options={**options, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4})
    one.train()
    four.train()
    assert distance(weights(one), weights(four)) < 2e-6
    assert losses(one) == pytest.approx(losses(four), abs=1e-5)


@pytest.mark.slow
def test_a_resumed_stream_is_the_whole_one(tmp_path: Path) -> None:
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4}

    def stream() -> datasets.IterableDataset:
        return tokenised().to_iterable_dataset().shuffle(seed=3, buffer_size=7)

    whole = trainer(tmp_path, stream(), options=options)
    whole.train()
    rest = trainer(tmp_path, stream(), options=options)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert distance(weights(whole), weights(rest)) == 0


def test_what_a_stream_cannot_do_is_refused(tmp_path: Path) -> None:
    stream = tokenised().to_iterable_dataset()
    said = r"(?s)2 problems.*max_steps: a stream has no length.*dataloader_num_workers.*set it to 0"
    with pytest.raises(CompatibilityError, match=said):
        trainer(tmp_path, stream, options={"max_steps": -1, "dataloader_num_workers": 2})
    with pytest.raises(DataError, match=r"got a IterableDataset, which cannot be read in any order.*stream.take"):
        trainer(tmp_path, evaluated=stream)
    with pytest.raises(DataError, match="the stream has no examples"):
        trainer(tmp_path, Lines(tokenised(), times=0))


# --- several to measure on ---


@pytest.mark.slow
def test_several_datasets_are_measured_by_name(tmp_path: Path) -> None:
    parts = {"whole": tokenised(), "half": tokenised(10)}
    made = trainer(tmp_path, evaluated=datasets.DatasetDict(parts),
                   options={"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True,
                            "save_strategy": "steps", "save_steps": 1, "metric_for_best_model": "half_accuracy"})
    made.train()
    assert made.state.best_metric is not None
    said = made.evaluate()
    assert said["eval_half_accuracy"] == made.evaluate(tokenised(10))["eval_accuracy"]
    assert said["eval_whole_accuracy"] == made.evaluate("whole")["eval_accuracy"]
    assert made.evaluate({"x": tokenised()}, metric_key_prefix="test")["test_x_accuracy"] == said["eval_whole_accuracy"]
    assert any("eval_half_accuracy" in entry for entry in made.state.log_history)
    with pytest.raises(CompatibilityError, match="got 'quarter'; expected whole or half"):
        made.evaluate("quarter")


def test_another_dataset_is_measured_as_transformers_would(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    other = Trainer(made.student, arguments(tmp_path), eval_dataset=tokenised(12), processing_class=tiny.tokenizer(),
                    compute_metrics=lambda said: {"accuracy": (said.predictions.argmax(-1) == said.label_ids).mean()})
    found = made.evaluate(tokenised(12), metric_key_prefix="other")
    assert found["other_accuracy"] == pytest.approx(other.evaluate()["eval_accuracy"])
    with pytest.raises(CompatibilityError, match="there is no eval_dataset"):
        made.evaluate()


def test_labels_alone_train_without_a_teacher_term(tmp_path: Path) -> None:
    made = trainer(tmp_path, terms=[Term(Labels())], student=classifier())
    made.train()
    assert len(losses(made)) == 2


# --- examples without labels ---


def half_unlabelled(number: int = 20) -> datasets.Dataset:
    """Every second pair of examples has no label."""
    return tokenised(number).map(lambda row, index: {"label": -100 if index % 4 > 1 else row["label"]}, with_indices=True)


@pytest.mark.slow
def test_examples_without_a_label_are_answered_by_the_teacher_alone(tmp_path: Path) -> None:
    known = tokenised().select([index for index in range(20) if index % 4 < 2])
    options = {"per_device_train_batch_size": 20, "max_steps": 1, "optim": "sgd"}
    made, alone = (trainer(tmp_path, rows, terms=[Term(Labels())], options=options) for rows in (half_unlabelled(), known))
    for one in (made, alone):
        one.train()
    assert losses(made) == pytest.approx(losses(alone), rel=1e-5)
    assert distance(weights(made), weights(alone)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.75, {"linear": [0.0, 1.0]}])
def test_a_trainer_takes_a_share_of_unlabelled_examples(tmp_path: Path, share: Any) -> None:
    made = trainer(tmp_path, half_unlabelled(), unlabelled_share=share, options={"max_steps": 5})
    steps = [batch for _, batch in zip(range(5), (batch for _ in range(3) for batch in made.get_train_dataloader()))]
    unlabelled = [int((batch.labels == -100).sum()) for batch in steps]
    assert unlabelled[:2] == ([6, 6] if share == 0.75 else [0, 2])
    made.train()
    assert len(losses(made)) == 5


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [(tokenised, {"unlabelled_share": 1.5}, "got 1.5; expected a share from 0 to 1"),
     (tokenised, {"unlabelled_share": {"linear": [0, 2]}}, "expected a share from 0 to 1"),
     (tokenised, {"unlabelled_share": "half"}, "unlabelled_share: got 'half'"),
     (lambda: [dict(row) for row in tokenised()], {"unlabelled_share": 0.5}, "no column `labels` that could be looked at"),
     (half_unlabelled, {"unlabelled_share": 0.5, "options": {"train_sampling_strategy": "sequential"}}, "order of their own"),
     (lambda: half_unlabelled().to_iterable_dataset(), {"unlabelled_share": 0.5}, "order of their own")],
)  # fmt: skip
def test_a_share_that_cannot_be_taken_is_refused(tmp_path: Path, data: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(CompatibilityError, match=said):
        trainer(tmp_path, data(), **more)


def test_a_share_of_what_is_all_labelled_is_refused_before_a_step(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="all examples are labelled; leave it out"):
        trainer(tmp_path, unlabelled_share=0.5).train()
