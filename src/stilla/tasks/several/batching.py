"""Examples of several tasks in one batch: each task's own batch within it, its inputs named `task/input`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Prepared
from stilla.tasks.exam import array
from stilla.tasks.several.mixture import Drawn, Mixture
from stilla.tasks.several.model import by_part

PARTS, PLACES = "parts", "places"
_CHUNK = 256
"""Examples whose labels are looked at together."""

Example = tuple[str, Any]
"""Which task's, and the example as that task has it."""


class Union(Dataset[Example]):
    """The examples of all tasks, one task after the other; with a mixture those of its epoch.

    `parts`: by name what each task has prepared. `rows`: where each one's examples stand in the split of all.
    """

    def __init__(
        self, parts: Mapping[str, Prepared], rows: Mapping[str, NDArray[np.int64]], mixture: Mixture | None = None
    ) -> None:
        self.parts, self.mixture = parts, mixture if mixture is not None and mixture.redraws else None
        self._names = list(parts)
        self._ends = np.cumsum([len(one) for one in parts.values()])
        self.keys = np.concatenate([rows[name][one.keys] for name, one in parts.items()])
        self._rows = rows

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = index if self.mixture is None else int(self.mixture.chosen[index])
        part = int(np.searchsorted(self._ends, place, side="right"))
        name = self._names[part]
        first = int(self._ends[part - 1]) if part else 0
        return name, self.parts[name].examples[place - first]

    def prepared(self, *, aligned: bool, references: Sequence[Any] | None) -> Prepared:
        """As a training or an exam gets it."""
        of_parts = [one.on_epoch for one in self.parts.values() if one.on_epoch is not None]
        mixture = self.mixture

        def on_epoch(epoch: int) -> None:
            for call in (*([] if mixture is None else [mixture.set_epoch]), *of_parts):
                call(epoch)

        lengths: Sequence[int] | None = None
        if all(one.lengths is not None for one in self.parts.values()):
            own = [int(length) for one in self.parts.values() for length in one.lengths or ()]
            lengths = own if mixture is None else Drawn(own, mixture)
        apart = None
        if any(one.apart is not None for one in self.parts.values()):
            apart = Together({name: one.read_apart().collate for name, one in self.parts.items()}, self._rows)
        return Prepared(
            examples=self, collate=Together({name: one.collate for name, one in self.parts.items()}, self._rows), apart=apart,
            keys=self.keys, lengths=lengths, aligned=aligned, references=references,
            on_epoch=on_epoch if of_parts or mixture is not None else None, redrawn=not of_parts,
            untouched=min((one.untouched for one in self.parts.values() if one.changes), default=0),
            unlabelled=None if mixture is None or not mixture.marks.any() else mixture.unlabelled,
            seen=None if mixture is None else self._seen,
            whole=None if mixture is None else Union(self.parts, self._rows).prepared(aligned=aligned, references=references))

    def _seen(self, epochs: float, unlabelled: bool) -> int:
        """As `Prepared.seen`: of examples that are cut into several pieces, by their share of those."""
        assert self.mixture is not None
        pieces = self.keys[self.mixture.marks == unlabelled]
        return round(self.mixture.seen(epochs, unlabelled=unlabelled) * len(np.unique(pieces)) / max(1, len(pieces)))


@dataclass(frozen=True)
class Together:
    """Each task's examples made into its own batch by its own collator. `rows`: where they stand in the split of all."""

    collators: Mapping[str, Callable[[Sequence[Any]], Batch]]
    rows: Mapping[str, NDArray[np.int64]]

    def __call__(self, examples: Sequence[Example]) -> Batch:
        student: dict[str, Any] = {}
        teacher: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        keys = torch.zeros(len(examples), dtype=torch.int64)
        for name, collate in self.collators.items():
            places = [place for place, (part, _) in enumerate(examples) if part == name]
            if not places:
                continue
            own = collate([examples[place][1] for place in places])
            shared = own.teacher is own.student
            ours = {f"{name}/{key}": value for key, value in own.student.items()}
            student |= ours
            teacher |= ours if shared else {f"{name}/{key}": value for key, value in own.teacher.items()}
            keys[places] = torch.from_numpy(self.rows[name][array(own["keys"])])
            parts[name] = {key: value for key, value in own.items() if key not in ("student", "teacher")}
            parts[name][PLACES] = torch.tensor(places)
        return Batch(student=student, teacher=teacher, keys=keys, parts=parts)


def parts_of(batch: Batch) -> dict[str, Batch]:
    """Each task's own batch, as its own collator made it."""
    student, teacher = by_part(batch.student), by_part(batch.teacher)
    return {name: Batch(student=student[name], teacher=_same(student[name], teacher[name]), **others)
            for name, others in batch[PARTS].items()}


def joined(parts: Mapping[str, Batch]) -> Batch:
    """A batch of these tasks alone, of what `parts_of` has found."""
    student, teacher = ({f"{name}/{key}": value for name, own in parts.items() for key, value in getattr(own, side).items()}
                        for side in ("student", "teacher"))
    others = {name: {key: value for key, value in own.items() if key not in ("student", "teacher")}
              for name, own in parts.items()}
    return Batch(student=student, teacher=teacher, parts=others)


def places_in(batch: Batch) -> dict[str, list[int]]:
    """Where each task's examples stand in the batch."""
    return {name: others[PLACES].tolist() for name, others in batch[PARTS].items()}


def references_of(prepared: Prepared) -> list[Any]:
    """What answers to one task's examples are compared with, one each, whether as given or as labels of batches."""
    if prepared.references is not None:
        return list(prepared.references)
    found: list[Any] = []
    for start in range(0, len(prepared), _CHUNK):
        some = range(start, min(start + _CHUNK, len(prepared)))
        labels = prepared.collate([prepared.examples[one] for one in some]).labels
        found += [_unpadded(one) for one in array(labels)] if labels is not None else [None] * len(some)
    return found


def _unpadded(labels: NDArray[Any]) -> NDArray[Any]:
    """Without what a batch has filled up behind."""
    if labels.ndim == 0:
        return labels
    there = np.flatnonzero(labels != NO_ANSWER)
    return labels[: there[-1] + 1] if len(there) else labels[:0]


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The student's inputs themselves, where the teacher's are the same."""
    alike = ours.keys() == theirs.keys() and all(ours[name] is theirs[name] for name in ours)
    return ours if alike else theirs


