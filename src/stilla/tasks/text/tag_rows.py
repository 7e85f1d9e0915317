"""The words of windows in a batch, each of which is a row: which token of either model answers for it, and its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Batch, Side
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.text.numbering import Numbering
from stilla.tasks.text.tag_exam import answered_words
from stilla.tasks.text.windows import Placed


def rows(batch: Batch, side: Side) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """The example and the position of every word that both sides have a token of."""
    there = _there(batch)
    example, word = there.nonzero(as_tuple=True)
    return example, answered_words(batch, side)[example, word]


def _there(batch: Batch) -> Tensor:
    if "words" not in batch and batch.labels is None:
        raise CompatibilityError("this batch has no `labels`: which of its positions are words is not known (-100 where "
                                 "there is none)")
    there = answered_words(batch, Side.STUDENT) >= 0
    return there & (answered_words(batch, Side.TEACHER) >= 0)


def labels_of(batch: Batch) -> Tensor | None:
    """The number of every such word's tag; None where the batch has none."""
    labels = batch.labels
    if labels is None:
        return None
    if "words" not in batch:
        return labels[rows(batch, Side.STUDENT)]
    return labels[_there(batch)]


@dataclass(frozen=True, eq=False)
class Collate:
    """`labels`: of every window the numbers of its own words. `numbering`: of a student with some of its teacher's tokens."""

    student: Placed
    teacher: Placed
    labels: Sequence[NDArray[np.int64]]
    keys: NDArray[np.int64]
    numbering: Numbering | None = None

    def __call__(self, chosen: Sequence[int]) -> Batch:
        student, ours = self.student.batch(chosen)
        teacher, theirs = (student, ours) if self.teacher is self.student else self.teacher.batch(chosen)
        if self.numbering is not None:
            teacher = self.numbering.inputs(student)
        labels = torch.full(ours.shape, NO_ANSWER)
        for row, one in enumerate(chosen):
            labels[row, : len(self.labels[one])] = torch.from_numpy(self.labels[one])
        return Batch(student=student, teacher=teacher, labels=labels, keys=torch.from_numpy(self.keys[list(chosen)]),
                     words={Side.STUDENT.value: ours, Side.TEACHER.value: theirs})
