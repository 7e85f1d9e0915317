"""What writing is timed on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla.errors import DataError
from stilla.evaluate.texts import Author, writing
from stilla.recipe import Generation
from stilla.tasks.language.writing import Asked, Writes, WrittenExam


class Task(Writes):
    """Whose questions are left out where they are too long for the author's processor, a number of tokens."""

    def asked(self, split: Dataset, processor: int) -> Asked:
        lengths = np.array(split["length"])
        keys = np.flatnonzero(lengths <= processor)
        if not len(keys):
            raise DataError("no prompt leaves room for an answer")
        tokens: Any = SimpleNamespace(
            lengths=lengths[keys], batch=lambda rows: {"input_ids": torch.tensor([[int(keys[row])] for row in rows])})
        return Asked(tokens, keys, ["" for _ in keys])


Task.__abstractmethods__ = frozenset()


def test_all_authors_are_timed_on_what_all_were_asked() -> None:
    seen: list[list[int]] = []

    def write(inputs: Any, options: Any, decoding: Any) -> list[Any]:
        seen.append(inputs["input_ids"].flatten().tolist())
        return []

    authors = {"teacher": [Author(write, 100)], "student": [Author(write, 8)]}
    split = Dataset.from_dict({"length": [9, 2, 5, 7, 30]})
    found = writing(WrittenExam(Task(), Generation(metrics=("bleu",), max_new_tokens=5)), split, authors, 4)
    for one in found.values():
        one.write(one.workload.one)
        one.write(one.workload.batches[0])
    assert seen == [[2], [1, 2, 3, 1]] * 2  # the median of the lengths 2, 5 and 7; a full batch
    assert {one.workload.batch_size for one in found.values()} == {4}


def test_what_some_examples_do_not_hold_is_looked_for_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilla.evaluate.texts.LOOKED_AT", 2)
    split = Dataset.from_dict({"length": [30, 3, 30, 4]})  # of which the first and the third are looked at
    author = Author(lambda inputs, options, decoding: [], 8)
    found = writing(WrittenExam(Task(), Generation(metrics=("bleu",))), split, {"student": [author]}, 2)["student"]
    assert found.workload.batches[0]["input_ids"].flatten().tolist() == [1, 3]
    with pytest.raises(DataError, match="no prompt"):
        writing(WrittenExam(Task(), Generation(metrics=("bleu",))), split, {"student": [Author(author.write, 1)]}, 2)
