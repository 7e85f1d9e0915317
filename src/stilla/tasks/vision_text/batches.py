"""Examples to batches: pictures and the texts that are said of them, for both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering
from stilla.tasks.vision.pixels import Kept, Source
from stilla.tasks.vision_text.reading import Reader

NONE = -1


@dataclass(frozen=True)
class Texts:
    """All texts of a split, each once, by one side's tokens."""

    reader: Reader
    tokens: _tokens.Tokens

    def inputs(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        return self.reader.inputs(self.tokens, numbers)


@dataclass(frozen=True)
class Collate:
    """pictures: of each example its place among those that were read, `NONE` where it has none. said: of each the numbers of
    its texts. known: the numbers of the student's tokens by which the teacher has the same. same: of each text the number of
    the first one that is read alike; None: no two are."""

    source: Source | Kept | None
    student: Texts
    teacher: Texts
    pictures: NDArray[np.int64]
    said: Sequence[Sequence[int]]
    keys: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    known: Numbering | None = None
    same: NDArray[np.int64] | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        chosen = list(examples)
        numbers, of = self._texts(chosen)
        unique, which = np.unique(numbers, return_inverse=True)
        student, teacher = self._pixels(chosen)
        shared = teacher is student
        if len(unique):
            ours = self.student.inputs(unique.tolist())
            alike = self.teacher is self.student
            theirs: Mapping[str, Tensor] = ours if alike else self.known.inputs(ours) if self.known is not None else \
                self.teacher.inputs(unique.tolist())
            shared = shared and alike
            student = {**student, **ours}
            teacher = student if shared else {**teacher, **theirs}
        there = (self.pictures[chosen] != NONE).astype(np.int64)
        places = np.where(there == 1, there.cumsum() - 1, NONE)
        names = numbers if self.same is None else self.same[numbers]
        written = np.where(self.labelled[chosen][of], of, NONE) if len(of) else of
        return Batch(
            student=student, teacher=teacher, keys=torch.from_numpy(self.keys[chosen]), pictures=torch.from_numpy(places),
            texts=torch.from_numpy(which.astype(np.int64)), numbers=torch.from_numpy(names), of=torch.from_numpy(of),
            written=torch.from_numpy(written))

    def _texts(self, chosen: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of all texts of these examples, and whose each is."""
        pairs = [(number, place) for place, one in enumerate(chosen) for number in self.said[one]]
        numbers, of = np.array(pairs, np.int64).reshape(-1, 2).T
        return np.ascontiguousarray(numbers), np.ascontiguousarray(of)

    def _pixels(self, chosen: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        places = [int(self.pictures[one]) for one in chosen if self.pictures[one] != NONE]
        if not places or self.source is None:
            none: dict[str, Any] = {}
            return none, none
        ours, theirs = self.source.pixels(places)
        student = {"pixel_values": torch.from_numpy(self.source.student.finish(ours))}
        if self.source.teacher is self.source.student:
            return student, student
        return student, {"pixel_values": torch.from_numpy(self.source.teacher.finish(theirs))}
