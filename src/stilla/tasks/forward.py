"""One forward of one side: a batch becomes signals. The same few lines for a student and a live teacher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import nn

from stilla.models.features import Record, Recorder
from stilla.models.heads import head_of, tapped
from stilla.models.spread import is_spread
from stilla.signals import Batch, Headed, Signals, Stack
from stilla.tasks.base import Side, Task


def listen(
    model: nn.Module,
    task: Task,
    batch: Batch,
    side: Side,
    recorder: Recorder | None = None,
    inside: Callable[[Signals], None] | None = None,
) -> Signals:
    """What the model says about the batch; with its hidden states if a recorder is given.

    Over a vocabulary, the logits are hidden states and a head, which makes no product of its own.

    inside: what wants the logits, still without hidden states. It runs within the head's own forward, where a sharded
        head is whole, and has been the only one to see the logits; where logits are dense, after the model.
    """
    inputs = batch.student if side is Side.STUDENT else batch.teacher
    if task.vocabulary:
        head_of(model)  # looked at once, by forwards of its own, which are not to be recorded
    recording = recorder.recording() if recorder is not None else nullcontext()
    with recording as record:
        if task.vocabulary:
            said = _tapped(model, task, batch, side, inputs, inside)
        else:
            said = task.signals(model(**inputs), batch, side)
            if inside is not None:
                inside(said)
    return said if record is None else replace(said, stacks=_stacks(record, task, batch, side))


def _tapped(
    model: nn.Module, task: Task, batch: Batch, side: Side, inputs: Any, inside: Callable[[Signals], None] | None
) -> Signals:
    if inside is None:
        with tapped(model) as tap:
            model(**inputs)
        return task.signals(tap.headed, batch, side)
    said: list[Signals] = []

    def use(headed: Headed) -> None:
        said.append(task.signals(headed, batch, side))
        inside(said[0])

    passing = is_spread(head_of(model).module)
    with tapped(model, use) as tap:
        model(**inputs)
    assert tap.headed is not None  # says so if the head was not used
    return replace(said[0], logits=None) if passing else said[0]


def _stacks(record: Record, task: Task, batch: Batch, side: Side) -> dict[str, Stack]:
    return {name: Stack(states, task.stack_mask(batch, side, name)) for name, states in record.hidden_states.items()}
