"""Models that answer otherwise where an example is padded, or each time they are asked: found by asking each about an example
alone, again, and beside a longer one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stilla.check.found import Found
from stilla.errors import CompatibilityError
from stilla.models.spread import is_spread
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.tasks.base import Prepared, Task
from stilla.tasks.forward import dtype_of, listen

LITTLE, ROUGH = 1e-3, 5e-2
"""How far apart answers may be, against their own size, for which rounding is enough; in float32, and in half of it."""
_LARGEST = 1e4
"""Beyond it are the floors of classes that an example has not."""


def look(task: Task, model: nn.Module, prepared: Prepared, side: Side, place: str, found: Found) -> None:
    """Warn of a model whose answer depends on more than its example. `place`: its own in the recipe."""
    if prepared.lengths is None or not len(prepared) or is_spread(model):
        return
    order = sorted(range(len(prepared)), key=lambda one: prepared.lengths[one])  # type: ignore[index]
    short, long = order[0], order[-1]
    if prepared.lengths[short] == prepared.lengths[long]:
        return
    alone, beside = (prepared.collate([prepared.examples[one] for one in some]) for some in ((short,), (short, long)))
    rows, rough = task.counts(alone)["rows"], dtype_of(model) != torch.float32
    try:
        first, again, padded = (_numbers(_asked(task, model, batch, side), rows) for batch in (alone, alone, beside))
    except RuntimeError as error:
        if rough:  # on an accelerator it may do what it does not do here
            return
        raise CompatibilityError(f"{place}: {type(model).__name__} cannot read a batch of these examples, of "
                                 f"{prepared.lengths[short]} and {prepared.lengths[long]} tokens: {error}") from error
    if first is None or again is None or padded is None or first.shape != padded.shape:
        return
    name, most = type(model).__name__, ROUGH if rough else LITTLE
    if (drawn := _apart(first, again)) > most:
        found.warn(f"{place}: {name} draws numbers at random where it answers too: asked twice about one example, it says "
                   f"something else by {drawn:.2g} of its answer's size. Scores of it are one draw of many")
    elif (moved := _apart(first, padded)) > most:
        found.warn(f"{place}: what {name} says of an example depends on how far it is padded, so on what else is in its "
                   f"batch, in training, in scores and at work: here by {moved:.2g} of its answer's size. "
                   "Take a model of another family, or examples of one length; in batches of one (batch_size: 1, and one "
                   "example at a time at work) nothing is padded")


def _asked(task: Task, model: nn.Module, batch: Batch, side: Side) -> Signals:
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return listen(model, task, batch.to(device), side)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _numbers(said: Signals, rows: int) -> Tensor | None:
    """What is said of the batch's first example, by the rows that it has by itself; None where it is nothing of one shape."""
    if isinstance(said.logits, Dense):
        return said.logits.logits[:rows].float()
    if isinstance(said.logits, Headed):
        return said.logits.hidden[:rows].float()
    if said.embeddings:
        return torch.cat([one[:1].float() for one in said.embeddings.values()], -1)
    return None


def _apart(one: Tensor, other: Tensor) -> float:
    there = one.abs() < _LARGEST
    return float((one - other)[there].norm() / one[there].norm().clamp_min(1e-12))
