"""What a student is measured by in the course of its training: the task's metrics, and how far it is from its teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stilla.errors import CompatibilityError
from stilla.evaluate import Asked, examine
from stilla.evaluate.asking import TEACHER, Precision, Within, directly
from stilla.signals import Side
from stilla.tasks.answers import Answers
from stilla.tasks.base import Prepared, Task
from stilla.teachers import LiveTeacher, Remembering

KL = "kl"
"""The name of the mean of KL(teacher || student) in nats at temperature 1, over examples, or over tokens of a vocabulary."""


class Validation:
    """splits: the validation data. teacher: asked too where a training goes by `kl`; about these data once, where its answers
    are enough to compare with."""

    def __init__(self, task: Task, splits: Sequence[Prepared] = (), teacher: nn.Module | None = None) -> None:
        self.task = task
        self.splits = splits
        self.teacher = teacher
        self._told: dict[int, Answers] = {}
        """By the place of a split."""

    def measured(
        self, student: nn.Module, prepared: Prepared, *, precision: Precision, batch_size: int, device: torch.device,
        together: bool, within: Within = directly,
    ) -> dict[str, float]:
        """By name. `together`: all processes ask a part each, and get all of it. `within`: where the student is whole."""
        exam, subjects = self.task.exam(), {"student": Asked(student, precision=precision, within=within)}
        place = next((place for place, split in enumerate(self.splits) if split is prepared), None)
        told = None if place is None else self._told.get(place)
        if self.teacher is not None and told is None:
            subjects = {TEACHER: Asked(self.teacher, Side.TEACHER, precision), **subjects}
        answers = examine(exam, subjects, prepared, device=device, batch_size=1 if prepared.packed else batch_size,
                          together=together, title="evaluating")
        said = answers["student"]
        metrics = {metric.name: metric.compute(said.given, said.references) for metric in exam.metrics()
                   if exam.concerns(metric, said)}
        if self.teacher is None:
            return metrics
        told = answers.get(TEACHER, told)
        assert told is not None
        divergence = exam.divergence(told, said)
        if divergence is None:
            raise CompatibilityError(f"metric_for_best_model: got {KL!r}, and the exam of {self.task.kind} compares no "
                                     f"distributions; expected one of its metrics: {', '.join(metrics)}")
        if place is not None and not exam.beside:
            self._told[place] = told
        return {**metrics, KL: float(divergence.mean())}


def measures(task: Task, *, taught: bool) -> dict[str, bool]:
    """What a training may go by, the headline first, and whether more is better. `taught`: by a teacher that is at hand."""
    found = {metric.name: metric.higher_is_better for metric in task.exam().metrics()}
    return found | ({KL: False} if taught and task.distributions and task.row_classes() > 1 else {})


def model_of(teacher: object) -> nn.Module | None:
    """The model that answers, where it is here: also behind a cache that is still being written."""
    if isinstance(teacher, Remembering):
        return model_of(teacher.live)
    if isinstance(teacher, LiveTeacher):
        return teacher.model
    return teacher if isinstance(teacher, nn.Module) else None
