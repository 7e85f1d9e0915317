"""One forward of one side: a batch becomes signals. The same few lines for a student and a live teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.features import Record, Recorder
from stilla.models.heads import head_of, tapped
from stilla.models.inputs import reading
from stilla.models.spread import is_spread
from stilla.signals import Batch, Dense, Headed, Signals, Stack
from stilla.tasks.base import Side, Task


def listen(
    model: nn.Module,
    task: Task,
    batch: Batch,
    side: Side,
    recorder: Recorder | None = None,
) -> Signals:
    """What the model says about the batch; with its hidden states if a recorder is given.

    Over a vocabulary, the logits are hidden states and a head, which makes no product of its own.
    """
    with _recording(model, task, recorder) as record:
        if task.vocabulary:
            with tapped(model) as tap:
                model(**_inputs(model, batch, side))
            said = task.signals(tap.headed, batch, side)
        else:
            said = task.signals(model(**_inputs(model, batch, side)), batch, side)
    return said if record is None else replace(said, stacks=_stacks(record, task, batch, side))


def explained(
    model: nn.Module, task: Task, batch: Batch, side: Side, recorder: Recorder | None = None
) -> Signals:
    """The same of a model that is not trained, with what its answers rest on, without a graph."""
    with torch.enable_grad(), reading(model, _inputs(model, batch, side)) as (inputs, read), \
            _recording(model, task, recorder) as record:
        said = task.signals(model(**inputs), batch, side)
        logits = dense(said)
        rests = read.weighed(logits, task.attributed(logits, batch)).detach()
        found = replace(said, logits=Dense(logits.detach()), saliency=rests)
        if record is None:
            return found
        stacks = {name: replace(one, hidden_states=[state.detach() for state in one.hidden_states])
                  for name, one in _stacks(record, task, batch, side).items()}
        return replace(found, stacks=stacks)


def dense(said: Signals) -> Tensor:
    """All logits.

    Raises:
        CompatibilityError: there are none.
    """
    if not isinstance(said.logits, Dense):
        raise CompatibilityError("saliency: explains answers of logits, and these are none; leave it out")
    return said.logits.logits


def listen_within(
    model: nn.Module,
    task: Task,
    batch: Batch,
    side: Side,
    recorder: Recorder | None,
    inside: Callable[[Signals], Tensor],
    classes: Tensor | None = None,
) -> tuple[Signals, Tensor]:
    """The same, and the scalar that `inside` makes of it, still without hidden states.

    `classes`: of the rows (`Task.attributed`), to be told what the answer to each example rests on, differentiably.

    Over a vocabulary `inside` runs within the head's own forward, where a sharded head is whole, and is the only one to see
    the logits; where logits are dense, after the model.
    """
    with _recording(model, task, recorder) as record:
        if task.vocabulary:
            said, made = _tapped(model, task, batch, side, inside)
        elif classes is not None:
            with reading(model, _inputs(model, batch, side)) as (inputs, read):
                said = task.signals(model(**inputs), batch, side)
                said = replace(said, saliency=read.weighed(dense(said), classes, again=True))
            made = inside(said)
        else:
            said = task.signals(model(**_inputs(model, batch, side)), batch, side)
            made = inside(said)
    return (said if record is None else replace(said, stacks=_stacks(record, task, batch, side))), made


def _recording(model: nn.Module, task: Task, recorder: Recorder | None) -> AbstractContextManager[Record | None]:
    if task.vocabulary:
        head_of(model)  # looked at once, by forwards of its own, which are not to be recorded
    return recorder.recording() if recorder is not None else nullcontext()


def _inputs(model: nn.Module, batch: Batch, side: Side) -> Mapping[str, Tensor]:
    return cast(batch.student if side is Side.STUDENT else batch.teacher, dtype_of(model))


def numbers_in(inputs: Mapping[str, Tensor]) -> int:
    """How many a model reads, those of padding included: by them its work grows with a batch."""
    return sum(one.numel() for one in inputs.values())


def dtype_of(model: nn.Module) -> torch.dtype:
    """Of a model's weights in floating point."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def cast(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Pictures and sounds come as float32, also to a model whose weights are bfloat16."""
    if dtype == torch.float32:
        return inputs
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def _tapped(
    model: nn.Module, task: Task, batch: Batch, side: Side, inside: Callable[[Signals], Tensor]
) -> tuple[Signals, Tensor]:
    done: list[tuple[Signals, Tensor]] = []

    def use(headed: Headed) -> Tensor:
        said = task.signals(headed, batch, side)
        done.append((said, inside(said)))
        return done[0][1]

    passing = is_spread(head_of(model).module)
    with tapped(model, use) as tap:
        empty = model(**_inputs(model, batch, side))["logits"]
    assert tap.headed is not None  # says so if the head was not used
    said, made = done[0]
    return (replace(said, logits=None) if passing else said), made + empty.sum().to(made.dtype)


def _stacks(record: Record, task: Task, batch: Batch, side: Side) -> dict[str, Stack]:
    grids = record.grids
    return {name: Stack(states, task.stack_mask(batch, side, name), grids[name])
            for name, states in record.hidden_states.items()}
