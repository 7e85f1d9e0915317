"""How far a student is from its teacher before its first step, and whether that is further than where others begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from stilla.data import from_all_over
from stilla.errors import CompatibilityError, counted
from stilla.recipe import Stage
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main, processes
from stilla.stages.place import Place
from stilla.tasks.base import Loaded
from stilla.training.arguments import precision_of, runs_on_cpu
from stilla.training.drawing import as_before
from stilla.training.validation import KL, Validation, measures

LOOKED_AT = 64
"""Validation examples: a start that is wrong shows in few."""


def say_where(place: Place, student: Loaded, teacher: Loaded, stage: Stage) -> None:
    """Measured where both say distributions over the same classes; draws nothing that a training would have drawn.

    KL(teacher || uniform) is at most ln C of C classes. Who begins further from its teacher is sure of what is wrong: random
    weights begin below (their first loss is about ln C; Karpathy 2019, "A recipe for training neural networks"), and so do
    good cuts.
    """
    task = place.task
    if KL not in measures(task, taught=True) or not task.comparable(student.processor, teacher.processor):
        return
    try:
        found = on_main(lambda: _measured(place, student, teacher, stage))
    except torch.OutOfMemoryError:  # a training may spread its student, or need no teacher whose answers are stored
        say("student: how far it is from its teacher before its first step is not measured, as both do not fit into the "
            "memory of one accelerator")
        return
    if found is None:
        return
    number = counted(min(LOOKED_AT, len(place.splits["validation"])), "validation example")
    said, most = f"student: before its first step its kl from the teacher is {found:.3g} on {number}", task.kl_from_equal()
    if found > most:
        said += (f", further than equal probabilities for all classes could be ({most:.3g} at most): it begins with answers "
                 "that are sure and wrong, which cost steps to unlearn. Other layers (layers_by: auto) or more of them may "
                 "begin nearer")
    say(said)


def _measured(place: Place, student: Loaded, teacher: Loaded, stage: Stage) -> float | None:
    """None where the task's exam compares no distributions."""
    some = from_all_over(place.splits["validation"], LOOKED_AT)
    prepared = place.task.prepare(some, student.processor, teacher.processor, training=False)
    device = torch.device("cpu") if runs_on_cpu(stage) else processes().device
    validation = Validation(place.task, [prepared], teacher.model)
    with _moved(student.model, device), _moved(teacher.model, device), as_before(device), suppress(CompatibilityError):
        return validation.measured(student.model, prepared, precision=precision_of(stage), device=device, together=False,
                                   batch_size=place.recipe.evaluate.batch_size)[KL]
    return None


@contextmanager
def _moved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A model where a training has it, and afterwards where it was: one whose answers are stored need not stay."""
    before = next(model.parameters()).device
    try:
        model.to(device)
        yield
    finally:
        model.to(before)
