"""Examples of several texts as batches: an example's texts stand one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stilla.signals import Batch
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering, for_teacher

ALONE = ("text",)
"""What an example's only text is called."""


def names_in(batch: Batch) -> tuple[str, ...]:
    """Of an example's texts."""
    names: tuple[str, ...] = batch.get("names", ALONE)
    return names


@dataclass(frozen=True)
class Belonging:
    """Of queries and what stands beside them, in the order of the examples' texts: `numbers`, equal for equal texts, and
    `known`: of which examples somebody has said that the second text answers the first, and the others do not."""

    numbers: NDArray[np.int64]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sequence[str], unlabelled: NDArray[np.bool_]) -> Belonging:
        """texts: of all examples, one after the other."""
        numbered = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return cls(np.array([numbered[text] for text in texts], np.int64), ~unlabelled)


@dataclass(frozen=True)
class Collate:
    """Examples -> a batch of all of their texts, an example's one after the other. `paired`: the teacher reads an example's
    first text with each of the others, and has so many inputs."""

    student: _tokens.Tokens
    teacher: _tokens.Tokens
    names: tuple[str, ...]
    labels: NDArray[Any] | None
    keys: NDArray[np.int64]
    numbering: Numbering | None = None
    paired: bool = False
    belonging: Belonging | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        each = len(self.names)
        texts = [one * each + place for one in examples for place in range(each)]
        student = self.student.batch(texts)
        others = [one * (each - 1) + place for one in examples for place in range(each - 1)]
        teacher = self.teacher.batch(others) if self.paired else \
            for_teacher(student, texts, self.student, self.teacher, self.numbering)
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(self.keys[list(examples)]), names=self.names)
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[list(examples)])
        if self.belonging is not None:
            batch["numbers"] = torch.from_numpy(self.belonging.numbers[texts])
            batch["known"] = torch.from_numpy(self.belonging.known[list(examples)])
        return batch
