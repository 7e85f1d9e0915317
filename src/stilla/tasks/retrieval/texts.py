"""Examples of several texts as batches: an example's texts stand one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stilla.signals import UNSAID, Batch
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
    """Of queries and what stands beside them, in the order of the examples' texts: `numbers`, equal for equal texts; `known`:
    of which examples somebody has said that the second text answers the first, and the others do not; `answers`: by the
    number of a query the numbers of all that answers it, in whatever example, at most so many (`most`)."""

    numbers: NDArray[np.int64]
    known: NDArray[np.bool_]
    answers: Mapping[int, Sequence[int]]
    most: int

    @classmethod
    def of(cls, texts: Sequence[str], unlabelled: NDArray[np.bool_]) -> Belonging:
        """texts: of all examples, one after the other."""
        numbered = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        numbers = np.array([numbered[text] for text in texts], np.int64)
        known, each = ~unlabelled, len(texts) // len(unlabelled)
        found: dict[int, dict[int, None]] = {}
        for query, answer in numbers.reshape(-1, each)[known, :2].tolist():
            found.setdefault(query, {})[answer] = None
        return cls(numbers, known, {query: [*several] for query, several in found.items()},
                   max(map(len, found.values()), default=0))

    def of_queries(self, texts: Sequence[int]) -> NDArray[np.int64]:
        """(queries, most): the answers of the queries that stand there, UNSAID behind the last."""
        found = np.full((len(texts), self.most), UNSAID, np.int64)
        for row, text in enumerate(texts):
            several = self.answers.get(int(self.numbers[text]), ())
            found[row, : len(several)] = several
        return found


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
            batch["answers"] = torch.from_numpy(self.belonging.of_queries(texts[::each]))
        return batch
