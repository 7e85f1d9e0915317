"""What evaluation keeps of a model whose classes are a vocabulary: a few numbers per row, never its logits.

Rows are measured where they are computed, in float32 and a chunk of logits at a time; only the columns of
`tasks/language/vocabulary.py` leave the batch. An exported file gives dense logits; those go through the same measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.rows import row_measures
from stilla.signals import Batch, Dense, Headed, Signals
from stilla.tasks.base import Side, Task
from stilla.tasks.forward import listen
from stilla.tasks.text.sequences import NO_ROW

_LOGITS = 2**26
"""Logits that an exported file may give at once: 256 MiB."""

_PROBED = 256
"""Rows whose logits are looked at for what lies on outputs that no token uses."""


def ask(
    forward: nn.Module | Callable[[Mapping[str, Tensor]], Tensor], task: Task, batch: Batch, side: Side
) -> Signals:
    """What a model or an exported file says about the rows of a batch; a file is asked for a few examples at a time."""
    if isinstance(forward, nn.Module):
        return listen(forward, task, batch, side)
    positions = batch[side.value]["input_ids"].shape[1]
    size = max(1, _LOGITS // max(1, positions * task.row_classes()))
    count = len(batch[side.value]["input_ids"])
    said = []
    for start in range(0, count, size):
        part = _part(batch, slice(start, start + size))
        said.append(task.signals(forward(part[side.value]), part, side))
    return Signals(Dense(torch.cat([one.logits.logits for one in said if isinstance(one.logits, Dense)])),
                   torch.cat([one.labels for one in said if one.labels is not None]))


def measured(
    task: Task, said: Signals, batch: Batch, teacher: Signals | None = None
) -> Float[Tensor, "batch positions columns"]:
    """The columns of every position with a label, 0 elsewhere; with KL(teacher || model) if the teacher was asked too."""
    aligned, reference = task.align(said, said if teacher is None else teacher, batch)
    assert aligned.logits is not None
    assert batch.labels is not None
    found = row_measures(aligned.logits, aligned.labels, None if teacher is None else reference.logits)
    columns = [found.nll, found.top1.float(), found.confidence, *([] if found.kl is None else [found.kl])]
    labels = batch.labels
    kept = torch.zeros(*labels.shape, len(columns), device=found.nll.device)
    kept[labels != NO_ROW] = torch.stack(columns, dim=-1)
    return kept


@torch.no_grad()
def unused_mass(said: Signals, task: Task, batch: Batch) -> float:
    """Mean probability, over some rows, of the outputs that no token uses (models pad their vocabularies)."""
    used, _ = task.align(said, said, batch)
    whole, part = _some(said), _some(used)
    if whole is None or part is None or whole.shape[1] == part.shape[1] or not len(whole):
        return 0.0
    inside = (part.double().logsumexp(-1) - whole.double().logsumexp(-1)).exp()
    return float((1 - inside).clamp_min(0).mean())


def _some(said: Signals) -> Tensor | None:
    form = said.logits
    if isinstance(form, Headed):
        form = form.rows(0, _PROBED).dense()
    return form.logits[:_PROBED] if isinstance(form, Dense) else None


def _part(batch: Batch, rows: slice) -> Batch:
    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        return {name: cut(one) for name, one in value.items()} if isinstance(value, Mapping) else value

    return Batch({name: cut(value) for name, value in batch.items()})


def side_by_side(parts: Sequence[NDArray[Any]], fill: int) -> NDArray[Any]:
    """Examples of batches of different widths in one array, filled up behind."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=0)

    def widened(part: NDArray[Any]) -> NDArray[Any]:
        if part.ndim < 2 or part.shape[1] == width:
            return part
        return np.pad(part, [(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)], constant_values=fill)

    return np.concatenate([widened(part) for part in parts])
