"""What writing is timed on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from stilla.evaluate.texts import Author, writing
from stilla.recipe import Generation
from stilla.tasks._writing import Asked, Writes

LENGTHS = {0: 9, 1: 2, 2: 5, 3: 7, 4: 30}


class Task(Writes):
    """Whose questions are left out where they are too long for the author's processor, a number of tokens."""

    def asked(self, split: Dataset, processor: int) -> Asked:
        keys = np.array([key for key in range(len(split)) if LENGTHS[key] <= processor])
        tokens: Any = SimpleNamespace(
            lengths=np.array([LENGTHS[int(key)] for key in keys]),
            batch=lambda rows: {"input_ids": torch.tensor([[int(keys[row])] for row in rows])})
        return Asked(tokens, keys, np.array(["" for _ in keys]))


Task.__abstractmethods__ = frozenset()


def test_all_authors_are_timed_on_what_all_were_asked() -> None:
    seen: list[list[int]] = []

    def write(inputs: Any, options: Any, decoding: Any) -> list[Any]:
        seen.append(inputs["input_ids"].flatten().tolist())
        return []

    authors = {"teacher": [Author(write, 100)], "student": [Author(write, 8)]}
    split = Dataset.from_dict({"text": list("abcde")})
    found = writing(Generation(metrics=("bleu",), max_new_tokens=5), Task(), split, authors, 4)
    for one in found.values():
        one.write(one.workload.one)
        one.write(one.workload.batches[0])
    assert seen == [[2], [1, 2, 3, 1]] * 2  # the median of the lengths 2, 5 and 7; a full batch
    assert {one.workload.batch_size for one in found.values()} == {4}
    nothing = {"teacher": [Author(write, 100)], "student": [Author(write, 1)]}
    assert writing(Generation(metrics=("bleu",)), Task(), split, nothing, 4) == {}
    assert writing(Generation(metrics=()), Task(), split, authors, 4) == {}
