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
        return batch
