"""Pieces of a batch, as a cache finds them again: by what they hold, wherever they stand."""

import torch
from transformers import BertForSequenceClassification

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
