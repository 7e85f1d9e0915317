"""From columns to batches to rows, with one or two tokenizers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from transformers import BertForSequenceClassification, BertJapaneseTokenizer

from stilla import data, tasks
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense
from stilla.tasks.answers import Answers
from stilla.tasks.base import Side
from stilla.tasks.text import tokens
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.views import Text
from tests.tasks.tiny import WORDS, bert_config, bert_folder, bert_tokenizer, labels_of, splits_of

ROWS = {"text": ["good film", "bad", "the food was very bad"], "label": ["good", "bad", "bad"]}


def task_of(rows: dict[str, list[Any]], **section: Any) -> TextClassification:
    return TextClassification.understand(TextClassificationData(train="x", **section), splits_of(rows))


def ids(*words: str) -> list[int]:
    vocabulary = bert_tokenizer().get_vocab()
    return [vocabulary[word] for word in words]


def test_a_batch_holds_padded_tokens_labels_and_keys() -> None:
    prepared = task_of(ROWS).prepare(Dataset.from_dict(ROWS), bert_tokenizer(), None, training=True)
    batch = prepared.collate([prepared.examples[1], prepared.examples[0]])
    assert batch.student["input_ids"].tolist() == [
        ids("[CLS]", "bad", "[SEP]", "[PAD]"),
        ids("[CLS]", "good", "film", "[SEP]"),
    ]
    assert batch.student["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.student["token_type_ids"].tolist() == [[0] * 4] * 2
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]
    assert batch.keys_ is not None
    assert batch.keys_.tolist() == [1, 0]
    assert batch.teacher is batch.student
    assert list(prepared.lengths or ()) == [4, 3, 7]
    assert {value.dtype for value in batch.student.values()} == {torch.int64}


def test_pairs_are_joined_by_the_tokenizer() -> None:
    rows = {"premise": ["good film", "bad"], "hypothesis": ["bad", "food"], "label": ["no", "yes"]}
    task = task_of(rows)
    prepared = task.prepare(Dataset.from_dict(rows), bert_tokenizer(), None, training=False)
    batch = prepared.collate([0])
    assert batch.student["input_ids"].tolist() == [ids("[CLS]", "good", "film", "[SEP]", "bad", "[SEP]")]
    assert batch.student["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert task.show(Dataset.from_dict(rows), 1) == Text("bad | food")


def test_two_tokenizers_see_the_same_texts() -> None:
    task, rows = task_of(ROWS), Dataset.from_dict(ROWS)
    other = bert_tokenizer(WORDS[::-1])
    prepared = task.prepare(rows, bert_tokenizer(), other, training=True)
    batch = prepared.collate([2])
    assert not prepared.aligned
    assert batch.student is not batch.teacher
    assert batch.teacher["input_ids"].tolist() == [other("the food was very bad")["input_ids"]]
    assert batch.student["input_ids"].tolist() == [bert_tokenizer()("the food was very bad")["input_ids"]]


def test_equal_tokenizers_share_their_inputs() -> None:
    prepared = task_of(ROWS).prepare(Dataset.from_dict(ROWS), bert_tokenizer(), bert_tokenizer(), training=True)
    batch = prepared.collate([0, 1])
    assert prepared.aligned
    assert batch.student is batch.teacher
    typeless = bert_tokenizer()
    typeless.model_input_names = ["input_ids", "attention_mask"]
    batch = task_of(ROWS).prepare(Dataset.from_dict(ROWS), typeless, bert_tokenizer(), training=True).collate([0])
    assert "token_type_ids" not in batch.student
    assert "token_type_ids" in batch.teacher


def test_padding_goes_to_the_side_that_the_tokenizer_says() -> None:
    left = bert_tokenizer()
    left.padding_side = "left"
    batch = task_of(ROWS).prepare(Dataset.from_dict(ROWS), left, None, training=True).collate([1, 0])
    assert batch.student["input_ids"][0].tolist() == ids("[PAD]", "[CLS]", "bad", "[SEP]")
    assert batch.student["attention_mask"][0].tolist() == [0, 1, 1, 1]


def test_texts_are_cut_to_what_both_models_read_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    short, long = bert_tokenizer(), bert_tokenizer(WORDS[::-1])
    short.model_max_length, long.model_max_length = 5, 9
    with caplog.at_level(logging.WARNING):
        prepared = task_of(ROWS).prepare(Dataset.from_dict(ROWS), long, short, training=True)
    batch = prepared.collate([2])
    assert batch.student["input_ids"].shape == batch.teacher["input_ids"].shape == (1, 5)
    assert "1 of 3 texts are longer than 5 of the student's tokens: cut" in caplog.text
    prepared = task_of(ROWS, max_length=4).prepare(Dataset.from_dict(ROWS), long, None, training=True)
    assert max(prepared.lengths or ()) == 4
    with caplog.at_level(logging.WARNING):
        task_of(ROWS, max_length=400).prepare(Dataset.from_dict(ROWS), long, None, training=True)
    assert "got 400, but the models read at most 9" in caplog.text


def test_a_folder_is_saved_with_the_length_at_which_texts_were_cut() -> None:
    short, long = bert_tokenizer(), bert_tokenizer(WORDS[::-1])
    short.model_max_length, long.model_max_length = 5, 9000
    rows = {"text": [f"{'bad ' * 700}film", "good"], "label": ["bad", "good"]}
    for section, teacher, expected in (({"max_length": 7}, long, 7), ({}, long, 512), ({}, short, 5)):
        task = task_of(rows, **section)
        kept = task.as_measured(long, teacher)
        assert kept.model_max_length == expected
        read = task.prepare(Dataset.from_dict(rows), long, teacher, training=False).collate([0]).student["input_ids"]
        assert kept(rows["text"][0], truncation=True)["input_ids"] == read[0].tolist()
    assert long.model_max_length == 9000  # with which others read
    assert task_of(rows, max_length=9).as_measured(short, long) is short


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_texts_that_are_null_or_empty_are_refused_or_skipped(text: str | None) -> None:
    rows = {"text": ["good", text, "bad"], "label": ["a", "b", "b"]}
    with pytest.raises(
        DataError,
        match=r"data\.train: 'text' is null or empty in 1 of 3 examples: row 1\. "
        ".*skip",
    ):
        task_of(rows)
    prepared = task_of(rows, broken="skip").prepare(Dataset.from_dict(rows), bert_tokenizer(), None, training=True)
    assert prepared.keys.tolist() == [0, 2]
    batch = prepared.collate([0, 1])
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]
    assert batch.keys_ is not None
    assert batch.keys_.tolist() == [0, 2]
    nothing = {"text": [text, text], "label": ["a", "b"]}
    with pytest.raises(DataError, match="there is no text left"):
        task_of(rows, broken="skip").prepare(Dataset.from_dict(nothing), bert_tokenizer(), None, training=True)


def test_every_problem_of_the_data_is_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        TextClassification.understand(
            TextClassificationData(train="x"),
            splits_of({"text": ["a", None], "label": ["x", None]}, validation={"text": [""], "label": [None]}),
        )
    message = str(caught.value)
    assert message.startswith("3 problems:")
    assert "data.train: 'text' is null" in message
    assert "data.validation: 'text' is null" in message
    assert "data.train: the label 'label' is missing in 1 of 2" in message
    assert "data.validation: the label 'label' is missing in 1 of 1" in message


def test_a_split_without_the_columns_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation: there is no column 'text'.*Did you mean txt\?"):
        TextClassification.understand(
            TextClassificationData(train="x"), splits_of(ROWS, validation={"txt": ["a"], "label": ["good"]}))


def test_examples_without_labels_make_batches_without_labels() -> None:
    prepared = task_of(ROWS).prepare(Dataset.from_dict({"text": ["good"]}), bert_tokenizer(), None, training=False)
    assert prepared.collate([0]).labels is None


# --- rows ---


def batch_of(labels: torch.Tensor | None, mask: list[list[int]]) -> Batch:
    inputs = {"input_ids": torch.ones_like(torch.tensor(mask)), "attention_mask": torch.tensor(mask)}
    return Batch(student=inputs, teacher=inputs, **({} if labels is None else {"labels": labels}))


def test_one_label_is_one_row_per_example() -> None:
    task, logits = task_of(ROWS), torch.randn(3, 2)
    batch = batch_of(torch.tensor([0, -100, 1]), [[1, 1], [1, 0], [1, 1]])
    signals = task.signals({"logits": logits}, batch, Side.STUDENT)
    assert isinstance(signals.logits, Dense)
    assert signals.logits.logits is logits
    assert signals.labels is batch.labels
    assert task.counts(batch) == {"rows": 3, "labelled": 2, "tokens": 5, "examples": 3}
    assert task.mask(batch, Side.TEACHER).tolist() == [[True, True], [True, False], [True, True]]
    assert task.row_classes() == 2


def test_each_of_several_labels_is_a_row_of_two_classes() -> None:
    rows = {"text": ["a", "b"], "labels": [["x", "y"], ["z"]]}
    task, logits = task_of(rows), torch.randn(2, 3)
    labels = torch.tensor([[1, 1, 0], [0, 0, 1]])
    batch = batch_of(labels, [[1], [1]])
    signals = task.signals({"logits": logits}, batch, Side.STUDENT)
    assert isinstance(signals.logits, Dense)
    assert signals.logits.logits.shape == (6, 2)
    assert signals.labels is not None
    # the cross-entropy of the rows is the binary cross-entropy of the labels
    rows_loss = functional.cross_entropy(signals.logits.logits, signals.labels, reduction="none")
    oracle = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    torch.testing.assert_close(rows_loss.reshape(2, 3), oracle)
    assert task.counts(batch) == {"rows": 6, "labelled": 6, "tokens": 2, "examples": 2}
    assert task.row_classes() == 2
    decisions = task.exam().decisions(Answers(np.arange(2), logits.numpy(), labels.numpy()))
    assert decisions is not None
    assert decisions.decided.tolist() == (logits > 0).int().tolist()
    np.testing.assert_allclose(decisions.confidence, torch.sigmoid(logits.abs()).numpy(), rtol=1e-6)


def test_a_number_is_a_row_of_width_one() -> None:
    task = task_of({"text": ["a", "b"], "score": [0.5, 1.5]})
    batch = batch_of(torch.tensor([0.5, 1.5]), [[1], [1]])
    signals = task.signals({"logits": torch.randn(2, 1)}, batch, Side.STUDENT)
    assert isinstance(signals.logits, Dense)
    assert signals.logits.logits.shape == (2, 1)
    assert signals.labels is not None
    assert signals.labels.tolist() == [-1.0, 1.0]  # in standard units
    decisions = task.exam().decisions(Answers(np.arange(2), np.zeros((2, 1)), np.zeros(2)))
    assert (task.row_classes(), task.class_names(), decisions) == (1, (), None)


def test_confidence_is_that_of_the_softmax() -> None:
    decisions = task_of(ROWS).exam().decisions(Answers(np.arange(1), np.array([[0.0, np.log(3)]]), np.zeros(1, np.int64)))
    assert decisions is not None
    assert decisions.decided.tolist() == [1]
    np.testing.assert_allclose(decisions.confidence, [0.75])


def test_labels_that_do_not_fit_the_kind_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="expected one whole number per example"):
        task_of(ROWS).signals({"logits": torch.zeros(2, 2)}, batch_of(torch.zeros(2, 2), [[1], [1]]), Side.STUDENT)
    rows = {"text": ["a", "b"], "labels": [["x", "y"], ["z"]]}
    with pytest.raises(CompatibilityError, match="expected 0 or 1"):
        task_of(rows).signals({"logits": torch.zeros(1, 3)}, batch_of(torch.full((1, 3), 0.5), [[1]]), Side.STUDENT)


# --- models ---


def test_a_model_of_ones_own_says_its_task() -> None:
    several = BertForSequenceClassification(
        bert_config(**labels_of("x", "y", "z"), problem_type="multi_label_classification")
    )
    task = tasks.of_model(several)
    assert isinstance(task, TextClassification)
    assert (task.class_names(), task.row_classes()) == (("x", "y", "z"), 2)
    batch = batch_of(torch.tensor([[0.0, 1.0, 1.0]]), [[1, 1]])
    signals = task.signals(several(**batch.student), batch, Side.STUDENT)
    assert signals.labels is not None
    assert signals.labels.tolist() == [0, 1, 1]
    number = TextClassification.of_model(BertForSequenceClassification(bert_config(num_labels=1)))
    assert number.problem.kind == "regression"
    with pytest.raises(CompatibilityError, match="no columns to prepare"):
        task.prepare(Dataset.from_dict(ROWS), bert_tokenizer(), None, training=False)
    with pytest.raises(CompatibilityError, match="no task is known for a BertModel"):
        tasks.of_model(several.base_model)


def test_from_a_file_to_logits_in_the_teachers_order(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert", **labels_of("good", "bad"))
    Dataset.from_dict({key: values * 10 for key, values in ROWS.items()}).to_csv(tmp_path / "rows.csv", index=False)
    section = TextClassificationData(train=str(tmp_path / "rows.csv"))
    splits = data.load(section, seed=0)
    task = tasks.find("text-classification").understand(section, splits)
    assert task.class_names() == ("bad", "good")
    teacher = task.load(ModelSource(model=str(folder)), labelled=True)
    task = task.adapted_to(teacher)
    assert task.class_names() == ("good", "bad")
    prepared = task.prepare(splits["validation"], teacher.processor, None, training=False)
    batch = prepared.collate(range(len(prepared.keys)))
    signals = task.signals(teacher.model(**batch.teacher), batch, Side.TEACHER)
    assert signals.labels is not None
    assert [task.class_names()[index] for index in signals.labels] == splits["validation"]["label"][:]
    assert prepared.references is not None
    assert list(prepared.references) == signals.labels.tolist()


def test_padding_has_no_influence(tmp_path: Path) -> None:
    task = task_of(ROWS)
    model = task.load(ModelSource(model=str(bert_folder(tmp_path, num_labels=2))), labelled=True)
    prepared = task.prepare(Dataset.from_dict(ROWS), model.processor, None, training=False)
    together = model.model.eval()(**prepared.collate([0, 1, 2]).student).logits
    alone = torch.cat([model.model(**prepared.collate([row]).student).logits for row in range(3)])
    torch.testing.assert_close(together, alone)


def test_texts_that_are_cut_are_counted_whatever_the_tokenizer_says(tmp_path: Path) -> None:
    """Tokenizers in Python say nothing of what they cut, and a text may be just as long as the limit."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    own = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="character")
    _, cut = tokens.tokenise(own, [["a b", "a b c", "a b c d", "a b c d e"]], 5)
    assert cut == 2
    assert tokens.tokenise(own, [["a", "a b c"], ["b", "d"]], 6)[1] == 1
    assert tokens.tokenise(bert_tokenizer(), [["good", "good good good", "good good good bad"]], 5)[1] == 1
