"""One forward of one side: a batch becomes signals. The same few lines for a student and a live teacher."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from stilla.features import Recorder
from stilla.signals import Batch, Signals, Stack
from stilla.tasks.base import Side, Task


def listen(model: nn.Module, task: Task, batch: Batch, side: Side, recorder: Recorder | None = None) -> Signals:
    """What the model says about the batch; with its hidden states if a recorder is given."""
    inputs = batch.student if side is Side.STUDENT else batch.teacher
    if recorder is None:
        return task.signals(model(**inputs), batch, side)
    with recorder.recording() as record:
        outputs = model(**inputs)
    mask = task.mask(batch, side)
    stacks = {name: Stack(states, mask) for name, states in record.hidden_states.items()}
    return replace(task.signals(outputs, batch, side), stacks=stacks)
