"""Models that answer otherwise where an example is padded, or each time they are asked: found by asking each about an example
alone, again, and beside a longer one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn

from stilla.check.found import Found
from stilla.errors import CompatibilityError
from stilla.models.modes import in_eval_mode
from stilla.models.spread import is_spread
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.students import has_adapters
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.forward import dtype_of, listen

LITTLE, ROUGH = 1e-3, 5e-2
"""How far apart answers may be, against their own size, for which rounding is enough; in float32, and in half of it."""
SECONDS = 10.0
"""That the longer example may take, by how long the short one does: a run begins with it, wherever the model is loaded to."""
_LARGEST = 1e4
"""Beyond it are the floors of classes that an example has not."""


def look(task: Task, model: Loaded, prepared: Prepared, side: Side, place: str, found: Found) -> None:
    """Warn of a model whose answer depends on more than its example; of several tasks, of each one's. `place`: its own in the
    recipe."""
    if prepared.lengths is None or is_spread(model.model):
        return
    if "" not in task.by_name and has_adapters(model.model):
        return  # adapters around an encoder that several heads share come apart only once they are merged
    for name, examples in _by_task(task, prepared).items():
        _look_at(task.by_name[name], task.part(model, name).model, side, f"{place} ({name})" if name else place,
                 {one: int(prepared.lengths[one]) for one in examples}, partial(_batch, task, name, prepared), found)


def _by_task(task: Task, prepared: Prepared) -> Mapping[str, list[int]]:
    """Which examples are of which task."""
    every = range(len(prepared))
    if "" in task.by_name:
        return {"": list(every)} if every else {}
    found: dict[str, list[int]] = {}
    for one in every:
        (name,) = task.parts_of(prepared.collate([prepared.examples[one]]))
        found.setdefault(name, []).append(one)
    return found


def _batch(task: Task, name: str, prepared: Prepared, *some: int) -> Batch:
    return task.parts_of(prepared.collate([prepared.examples[one] for one in some]))[name]


def _look_at(
    task: Task, model: nn.Module, side: Side, place: str, lengths: Mapping[int, int], batch: Callable[..., Batch],
    found: Found,
) -> None:
    """`lengths`: by example. `batch`: of so many of them."""
    short, *others = sorted(lengths, key=lengths.__getitem__)
    longer = [one for one in others if lengths[one] > lengths[short]]
    if not longer:
        return
    alone, rough = batch(short), dtype_of(model) != torch.float32
    rows = task.counts(alone)["rows"]
    try:
        first = _numbers(_asked(task, model, alone, side), rows)
        began = perf_counter()  # not of the first time, at which a model is looked at too
        again = _numbers(_asked(task, model, alone, side), rows)
        each = 2 * (perf_counter() - began) / max(1, lengths[short])
        longer = [one for one in longer if each * lengths[one] < SECONDS]
        padded = _numbers(_asked(task, model, batch(short, longer[-1]), side), rows) if longer else None
    except (RuntimeError, IndexError) as error:
        if rough or "allocate memory" in str(error):  # where it is trained it may do what it does not do here
            return
        raise CompatibilityError(f"{place}: {type(model).__name__} cannot read a batch of these examples, of lengths "
                                 f"{lengths[short]} and {lengths[others[-1]]}: {error}") from error
    name, most = type(model).__name__, ROUGH if rough else LITTLE
    if not (drawn := _apart(first, again)) <= most:
        found.warn(f"{place}: {name} draws numbers at random where it answers too: asked twice about one example, it says "
                   f"something else by {drawn:.2g} of its answer's size. Scores of it are one draw of many")
    elif not (moved := _apart(first, padded)) <= most:
        found.warn(f"{place}: what {name} says of an example depends on how far it is padded, so on what else is in its "
                   f"batch, in training, in scores and at work: here by {moved:.2g} of its answer's size. "
                   "Take a model of another family, or examples of one length; in batches of one (batch_size: 1, and one "
                   "example at a time at work) nothing is padded")


@torch.no_grad()
def _asked(task: Task, model: nn.Module, batch: Batch, side: Side) -> Signals:
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    with in_eval_mode(model):
        return listen(model, task, batch.to(device), side)


def _numbers(said: Signals, rows: int) -> Tensor | None:
    """What is said of the batch's first example, by the rows that it has by itself; None where it is nothing of one shape."""
    if isinstance(said.logits, Dense):
        return said.logits.logits[:rows].float()
    if isinstance(said.logits, Headed):
        return said.logits.hidden[:rows].float()
    if said.embeddings:
        return torch.cat([one[:1].float() for one in said.embeddings.values()], -1)
    return None


def _apart(one: Tensor | None, other: Tensor | None) -> float:
    """By how much of the first's size they differ; 0 where they cannot be held against each other."""
    if one is None or other is None or one.shape != other.shape:
        return 0.0
    there = one.abs() < _LARGEST
    return float((one - other)[there].norm() / one[there].norm().clamp_min(1e-12))
