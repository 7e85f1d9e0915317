"""What a task says of teacher and student beside each other: whether and how their rows answer to each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import Term
from stilla.recipe import Data
from stilla.signals import Batch, Dims, Signals
from stilla.tasks.contract.rows import Rows
from stilla.tasks.prepared import Loaded, Segment, content, without_row


class Between(Rows):
    """By default both read the same, number their classes alike, and every example is asked by itself."""

    data_section: ClassVar[type[Data]]

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """The same task with teachers that read other columns, by the field of the section that names the student's.

        Raises:
            CompatibilityError: its rows are pieces of what both read.
            DataError: no such field or column.
        """
        if not columns:
            return self
        raise CompatibilityError(f"teacher.data: rows of `{self.kind}` are pieces of what both models read, so that a "
                                 "teacher cannot read something else. Leave it out")

    def taught_at_length(self, length: int) -> Self:
        """The same task with teachers that read so much of an example, whatever its students read of it: a longer text, more
        of a history.

        Raises:
            CompatibilityError: its rows are pieces of all that both read, or nothing that is read has a length.
        """
        both = ", or set data.max_length for both" if "max_length" in self.data_section.model_fields else ""
        raise CompatibilityError(f"teacher.data.max_length: a teacher of `{self.kind}` reads as much as its students. Leave "
                                 f"it out{both}")

    def of_teacher(self) -> Self:
        """The task of a teacher by itself: what it reads where its students read something else."""
        return self

    @abstractmethod
    def adapted_to(self, teacher: Loaded) -> Self:
        """The same task with its labels in the teacher's order.

        Raises:
            CompatibilityError: the teacher cannot answer for these labels.
        """

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        """The same task, adapted to a teacher, for a student that may number otherwise what both read."""
        return self

    def unmeasured(self, teacher: Loaded) -> str | None:
        """Why a teacher cannot be asked in the exams what its students are asked, in words; None where it can."""
        return None

    def alike(self, student: Any, teacher: Any) -> bool:
        """Whether these processors' models are asked the same of an example, and answer in the same classes."""
        return True

    def comparable(self, student: Any, teacher: Any) -> bool:
        """Whether what they say can be compared piece by piece, once `align` has brought one to the other."""
        return self.alike(student, teacher)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """Make the rows of both sides answer to each other; by default they already do."""
        return student, teacher

    def alone(self, student: Signals, batch: Batch) -> Signals:
        """What `align` makes of a student's rows where no teacher was asked."""
        return self.align(student, student, batch)[0]

    def teacher_classes(self) -> int:
        """The same of what a teacher says, before `align` brings it to the student's."""
        return self.row_classes()

    def teacher_labels(self, labels: Tensor) -> Tensor:
        """Labels as the teacher numbers them."""
        return labels

    def told(self, stored: Dims) -> Dims:
        """The sizes of a teacher's answers that were stored, once `align` has brought them to the student's."""
        smaller = self.row_classes() < self.teacher_classes() == stored.classes
        return replace(stored, classes=self.row_classes()) if smaller else stored

    def remembering(self, terms: Sequence[Term]) -> Self:
        """The same task, between two models, which stores of a teacher's answers what these terms learn beside all others."""
        return self

    @property
    def kept_beside(self) -> Mapping[str, Any]:
        """What that is, by name; a cache is known by it too."""
        return {}

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        """What of a teacher's answer is stored, so that it serves any student: without outputs that no class uses."""
        return self.alone(teacher, batch)

    def segments(self, batch: Batch) -> list[Segment]:
        """The pieces of the teacher's inputs, in the order of their rows; by default every example is one, with the rows
        that it has by itself.

        Raises:
            CompatibilityError: the examples by themselves have not the rows of the batch; the task has to say whose they are.
        """
        examples = len(next(iter(batch.teacher.values())))
        ends = np.cumsum([0] + [self.counts(batch.part(slice(one, one + 1)))["rows"] for one in range(examples)]).tolist()
        rows = self.counts(batch)["rows"]
        if ends[-1] != rows:
            raise CompatibilityError(
                f"{self.kind}: the {examples} examples of a batch have {ends[-1]} rows by themselves and {rows} together, so "
                "that nobody knows whose a teacher's answer is. `segments` of the task has to say it (or cache: none)")
        return [Segment(content(batch.teacher, one) + without_row(batch, one), slice(ends[one], ends[one + 1]), one)
                for one in range(examples)]
