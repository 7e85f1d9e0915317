"""Pieces of a batch, as a cache finds them again: by what they hold, wherever they stand."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from stilla.errors import CompatibilityError
from stilla.signals import Batch
from stilla.tasks.base import content
from stilla.tasks.shared.classification import Classification
from stilla.tasks.text.text_classification import TextClassification
from tests.tasks.tiny import bert_config


def batch_of(*rows: list[int], width: int, left: bool = False) -> Batch:
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        here = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, here], mask[index, here] = torch.tensor(row), 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Batch(student=inputs, teacher=inputs)


def task() -> Classification:
    return TextClassification.of_model(BertForSequenceClassification(bert_config(num_labels=3)))


def test_an_example_is_the_same_in_whatever_batch_it_stands() -> None:
    alone = task().segments(batch_of([5, 6, 7], width=3))[0]
    for batch in (batch_of([5, 6, 7], [8], width=6), batch_of([5, 6, 7], [8], width=4, left=True)):
        assert task().segments(batch)[0].content == alone.content
    assert task().segments(batch_of([8], [5, 6, 7], width=5))[1].content == alone.content


def test_other_examples_other_names_and_other_types_differ() -> None:
    values = {"input_ids": torch.tensor([[1, 2]])}
    others = [{"input_ids": torch.tensor([[1, 3]])}, {"tokens": torch.tensor([[1, 2]])},
              {"input_ids": torch.tensor([[1, 2]], dtype=torch.int32)}, {"input_ids": torch.tensor([[[1], [2]]])}]
    assert len({content(one, 0) for one in (values, *others)}) == 5


def test_every_row_is_in_one_piece() -> None:
    pieces = task().segments(batch_of([5, 6, 7], [8], [9, 9], width=3))
    assert [piece.rows for piece in pieces] == [slice(0, 1), slice(1, 2), slice(2, 3)]


class Words(TextClassification):
    """Rows are the positions with a label, of which examples have different numbers."""

    def counts(self, batch: Batch) -> Mapping[str, int]:
        labels: Any = batch.labels
        return {"rows": int((labels != -100).sum())}


def words(rows: list[list[int]], labels: list[list[int]], width: int, *, left: bool = False) -> Batch:
    batch = batch_of(*rows, width=width, left=left)
    placed = torch.full((len(rows), width), -100)
    placed[batch.student["attention_mask"].bool()] = torch.tensor([one for several in labels for one in several])
    return Batch({**batch, "labels": placed})


def of_words() -> Words:
    return Words.of_model(BertForSequenceClassification(bert_config(num_labels=3)))


def test_examples_of_different_numbers_of_rows_have_their_own() -> None:
    batch = words([[5, 6, 7, 8], [9], [9, 9]], [[-100, 1, 2, 0], [-100], [1, -100]], width=4)
    assert [piece.rows for piece in of_words().segments(batch)] == [slice(0, 3), slice(3, 3), slice(3, 4)]


def test_the_same_tokens_with_rows_elsewhere_are_another_piece() -> None:
    first, other = of_words().segments(words([[5, 6], [5, 6]], [[-100, 1], [1, -100]], width=3))
    assert first.content != other.content
    (again,) = of_words().segments(words([[5, 6]], [[-100, 2]], width=5, left=True))
    assert again.content == first.content


def test_rows_of_nobody_are_refused() -> None:
    class Odd(Words):
        def counts(self, batch: Batch) -> Mapping[str, int]:
            return {"rows": 1 + super().counts(batch)["rows"]}

    odd = Odd.of_model(BertForSequenceClassification(bert_config(num_labels=3)))
    with pytest.raises(CompatibilityError, match="5 rows by themselves and 4 together"):
        odd.segments(words([[5, 6], [7]], [[1, 2], [0]], width=2))
