"""Teachers that remember what they said: one, or one for each of several tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from stilla.signals import Batch, Dims, Signals
from stilla.tasks.base import Task
from stilla.teachers.live import Teacher


class Remembering(ABC):
    """Answers what it knows; what it does not, a teacher answers, and it is stored."""

    live: Teacher
    """Who is asked."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Signals: ...

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Move to where the batches are."""

    @abstractmethod
    def holds(self, batch: Batch) -> bool:
        """Whether the batch could be answered without the live teacher."""

    @abstractmethod
    def flush(self) -> None:
        """Bring everything to disk that was answered so far."""

    @abstractmethod
    def close(self) -> None:
        """Flush, and let others write."""

    def dims(self, batch: Batch | None = None) -> Dims:
        return self.live.dims(batch)


class RememberingParts(Remembering):
    """Of several tasks, what was said of each task's examples in a store of its own, which is that of the task by itself: a
    run of that task alone reads it, and stores what is read here."""

    def __init__(self, live: Teacher, task: Task, parts: Mapping[str, Remembering]) -> None:
        """`live`: answers for all tasks. `parts`: by their names (`task.by_name`), each over a `PartOfTeacher`."""
        self.live = live
        self.task = task
        self.parts = parts

    def __call__(self, batch: Batch) -> Signals:
        return self.task.signals_of({name: self.parts[name](own) for name, own in self.task.parts_of(batch).items()})

    def to(self, device: torch.device | str) -> None:
        self.live.to(device)
        for one in self.parts.values():
            one.to(device)

    def holds(self, batch: Batch) -> bool:
        return all(self.parts[name].holds(own) for name, own in self.task.parts_of(batch).items())

    def flush(self) -> None:
        for one in self.parts.values():
            one.flush()

    def close(self) -> None:
        for one in self.parts.values():
            one.close()


class PartOfTeacher:
    """A teacher of several tasks as the teacher of one of them, which is asked about that task's examples alone."""

    def __init__(self, live: Teacher, task: Task, name: str) -> None:
        self.live, self.task, self.name = live, task, name

    def __call__(self, batch: Batch) -> Signals:
        return self.live(self.task.batch_of({self.name: batch})).parts[self.name]

    def to(self, device: torch.device | str) -> None:
        self.live.to(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        return Dims(self.task.by_name[self.name].row_classes())
