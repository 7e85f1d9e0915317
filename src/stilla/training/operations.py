"""What a training computes: operations of real micro-batches, counted, for each number that enters the models.

Times all that has entered in a training, they are what the training computed. Counted when it is over: a step more, whose
gradients nobody uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stilla.evaluate.asking import evaluating
from stilla.evaluate.flops import Counter, flops_of
from stilla.signals import Batch, Dims, Signals
from stilla.tasks.forward import numbers_in
from stilla.teachers import LiveTeacher, Remembering
from stilla.training.survey import unchanged

if TYPE_CHECKING:  # what asks a teacher alone imports nothing that trains
    from stilla.training.trainer import DistillationTrainer

MICRO_BATCHES = 2
"""That are computed once more: each may take minutes."""
_BY_THEMSELVES = ("lomo", "layerwise", "schedule_free")
"""In the names of optimisers that change weights as a step begins, or as soon as there is a gradient."""


@dataclass(frozen=True)
class Operations:
    """FLOPs for a number that enters (a token, a pixel; those of padding too). `student`: forward and backward with all that
    the loss takes. `teacher`: a forward; None where it is not asked, or not in this process. `forward`: the student's alone;
    None where it chose nothing."""

    student: float
    teacher: float | None = None
    forward: float | None = None


def live_of(teacher: object) -> LiveTeacher | None:
    """The model that answers, also behind a cache that is being written."""
    if isinstance(teacher, Remembering):
        return live_of(teacher.live)
    return teacher if isinstance(teacher, LiveTeacher) else None


def operations_of(trainer: DistillationTrainer, *, compiled: bool) -> Operations | None:
    """By the first micro-batches of a training that is over; None where the counter sees less than what is computed: of
    several processes one, of compiled losses nothing, of some operations nothing either; and where an optimiser changes
    weights before it is asked to."""
    if trainer.accelerator.num_processes > 1 or compiled or any(one in trainer.args.optim.value for one in _BY_THEMSELVES):
        return None
    at_once = min(MICRO_BATCHES, trainer.args.gradient_accumulation_steps)  # what several share, steps of one do not compute
    live, batches, found, counter = live_of(trainer.teacher), list[Batch](), list[float | None](), Counter()
    with _as_before(trainer.model), _aside(trainer, counter) as aside:
        some = islice(iter(trainer.get_train_dataloader()), MICRO_BATCHES)
        while (step := trainer.get_batch_samples(some, at_once, trainer.args.device))[0]:
            found += [flops_of(partial(trainer.training_step, trainer.model_wrapped, batch, step[1]), counter)
                      for batch in step[0]]
            batches += step[0]
        if not found or None in found:
            return None
        first = batches[0].to(trainer.args.device)
        teacher = None if live is None else aside.answered(first) if aside else operations_of_teacher(live, first)
    entered = sum(numbers_in(batch.student) for batch in batches)
    total, asked = sum(one for one in found if one is not None), 0 if aside is None else aside.entered
    if asked and teacher is None:
        return None
    forward = None
    if trainer.hardest is not None and trainer.hardest.entered:
        forward = _operations_alone(trainer.student, first)
        if forward is None:
            return None
    return Operations((total - (teacher or 0.0) * asked) / entered, teacher, forward)


def _operations_alone(student: nn.Module, batch: Batch) -> float | None:
    with evaluating(student, next(iter(batch.student.values())).device, "float32") as run:
        found = flops_of(lambda: run(batch.student))
    return None if found is None else found / numbers_in(batch.student)


def operations_of_teacher(live: LiveTeacher, batch: Batch) -> float | None:
    """FLOPs of its forward for a number that enters; None where they cannot be counted."""
    found = flops_of(lambda: live.answer(batch))
    return None if found is None else found / numbers_in(batch.teacher)


class _Aside:
    """A live teacher that is asked beside the training: not among its answers. `counter`: what counts meanwhile."""

    def __init__(self, live: LiveTeacher, counter: Counter) -> None:
        self.live, self.counter, self.entered = live, counter, 0
        self._counted: dict[tuple[Any, ...], int] = {}

    def __call__(self, batch: Batch) -> Signals:
        self.entered += numbers_in(batch.teacher)
        before = self.counter.total
        said = self.live.answer(batch)
        self._counted.setdefault(_sizes(batch), self.counter.total - before)
        return said

    def answered(self, batch: Batch) -> float | None:
        """As `operations_of_teacher`, by what was counted where the training asked about a batch of these sizes first."""
        found = self._counted.get(_sizes(batch))
        return found / numbers_in(batch.teacher) if found else operations_of_teacher(self.live, batch)

    def to(self, device: torch.device | str) -> None:
        self.live.to(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        return self.live.dims(batch)


def _sizes(batch: Batch) -> tuple[Any, ...]:
    """Of what the teacher reads; what it computes is the same for all batches of the same."""
    return tuple((name, tuple(value.shape)) for name, value in sorted(batch.teacher.items()))


@contextmanager
def _aside(trainer: DistillationTrainer, counter: Counter) -> Iterator[_Aside | None]:
    """While it lasts a live teacher is asked aside; what is read from a cache by then is nobody's forward."""
    teacher = trainer.teacher
    aside = _Aside(teacher, counter) if isinstance(teacher, LiveTeacher) else None
    trainer.teacher = teacher if aside is None else aside
    try:
        yield aside
    finally:
        trainer.teacher = teacher


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Running statistics, gradients and chance are as if nothing had been computed."""
    training = model.training
    with unchanged(model):
        yield
    model.zero_grad(set_to_none=True)
    model.train(training)
