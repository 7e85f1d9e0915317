"""What a teacher reads of texts that its student, whose vocabulary is smaller, reads in other pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.signals import Batch
from stilla.stages.caching import as_read
from stilla.tasks.base import Prepared
from stilla.tasks.several.batching import Union, parts_of
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests.students import speaking
from tests.students.test_vocabulary import cut

TEXTS = list(speaking.CORPUS[::5])
ROWS = Dataset.from_dict({"text": TEXTS, "label": ["a" if number % 3 else "b" for number in range(len(TEXTS))]})
BEFORE, AFTER, _ = cut("bert", tokens=110)


def task(augment: str = "none") -> TextClassification:
    section = TextClassificationData(train="x", augment=augment, clean_passes=0)  # type: ignore[arg-type]
    made = TextClassification.understand(section, {"train": ROWS, "validation": ROWS})
    return replace(made, embedding=torch.randn(len(BEFORE), 8, generator=torch.manual_seed(0)))


def prepared(augment: str = "none", student: Any = AFTER) -> Prepared:
    return task(augment).prepare(ROWS, student, BEFORE, training=True, seed=1)


def batch_of(found: Prepared, rows: Sequence[int]) -> Batch:
    return found.collate([found.examples[row] for row in rows])


def valid(inputs: Any, row: int) -> list[int]:
    mask: Tensor = inputs["attention_mask"][row].bool()
    numbers: list[int] = inputs["input_ids"][row][mask].tolist()
    return numbers


def test_it_reads_its_own_tokens_of_what_is_not_compared_by_position() -> None:
    found = prepared().read_apart()
    batch = batch_of(found, range(len(TEXTS)))
    for row, text in enumerate(TEXTS):
        assert valid(batch.student, row) == AFTER(text)["input_ids"]
        assert valid(batch.teacher, row) == BEFORE(text)["input_ids"]
    assert any(len(AFTER(text)["input_ids"]) != len(BEFORE(text)["input_ids"]) for text in TEXTS)
    assert not found.aligned


def test_it_reads_the_students_pieces_of_what_is_compared_by_position() -> None:
    found = prepared()
    batch = batch_of(found, range(8))
    assert found.aligned
    for row in range(8):
        assert [BEFORE.decode([one]) for one in valid(batch.teacher, row)] == [
            AFTER.decode([one]) for one in valid(batch.student, row)]


@pytest.mark.parametrize("left", [False, True])
def test_of_a_changed_text_it_reads_the_pieces_that_were_changed_and_of_others_its_own(left: bool) -> None:
    sides = "left" if left else "right"
    before, after, _ = cut("bert", tokens=110)
    before.padding_side = after.padding_side = sides
    found = task("light").prepare(ROWS, after, before, training=True, seed=1).read_apart()
    rows = list(range(len(TEXTS)))
    batch = batch_of(found, rows)
    assert batch.labels is not None
    changed = (batch.labels == -100).numpy()
    assert 0 < changed.sum() < len(rows)
    for row, text in enumerate(TEXTS):
        told = valid(batch.teacher, row)
        if changed[row]:
            assert [before.decode([one]) for one in told] == [after.decode([one]) for one in valid(batch.student, row)]
        else:
            assert told == before(text)["input_ids"]
    alone = [batch_of(found, [row]) for row in rows]
    assert all(valid(one.teacher, 0) == valid(batch.teacher, row) for row, one in enumerate(alone))
    first = batch.teacher["attention_mask"][:, 0].numpy() if left else batch.teacher["attention_mask"][:, -1].numpy()
    assert not np.all(first)


def test_where_both_read_the_same_pieces_there_is_nothing_to_choose() -> None:
    same = cut("bert")[1]
    few = Dataset.from_dict({"text": list(speaking.SOME[:6]), "label": ["a", "b"] * 3})
    made = TextClassification.understand(TextClassificationData(train="x", augment="none"), {"train": few, "validation": few})
    found = made.prepare(few, same, BEFORE, training=True)
    assert found.apart is None
    assert found.read_apart() is found


def test_a_teacher_of_one_of_several_tasks_reads_its_own_tokens_too() -> None:
    own, other = prepared(), prepared(student=BEFORE)  # the other's teacher reads what its student reads
    rows = {"own": np.arange(len(TEXTS)), "other": np.arange(len(TEXTS)) + len(TEXTS)}
    whole = Union({"own": own, "other": other}, rows).prepared(aligned=True, references=None)
    found, places = whole.read_apart(), [*range(len(TEXTS)), len(TEXTS)]
    read, alone = parts_of(batch_of(found, places))["own"], batch_of(own.read_apart(), range(len(TEXTS)))
    assert torch.equal(read.teacher["input_ids"], alone.teacher["input_ids"])
    by_position = parts_of(batch_of(whole, places))["own"]
    assert not torch.equal(by_position.teacher["input_ids"], read.teacher["input_ids"])
    assert whole.aligned
    assert not found.aligned
    assert Union({"other": other}, {"other": rows["own"]}).prepared(aligned=True, references=None).apart is None


def recipe(*objectives: Any) -> Recipe:
    return from_options({"task": "text-classification", "data": {"train": "x.csv"}, "teacher": "./t", "student": 1,
                         "distill": {"objectives": [one if isinstance(one, dict) else {"kind": one} for one in objectives]}})


def test_the_terms_of_a_recipe_decide() -> None:
    found = prepared()
    assert not as_read(found, recipe("labels", "logits"), task()).aligned
    assert not as_read(found, recipe("logits", {"kind": "hidden", "pooling": "mean"}), task()).aligned
    assert as_read(found, recipe("logits", "hidden"), task()) is found
