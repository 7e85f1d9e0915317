"""All that a model says about a dataset, as transformers' `predict` gives it: logits and labels in the data's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from stilla.errors import CompatibilityError
from stilla.evaluate.asking import Precision, Within, directly, evaluating
from stilla.tasks.base import Prepared, Task
from stilla.tasks.text.sequences import NO_ROW
from stilla.training.loaders import loader

Reduce = Callable[[Tensor, Tensor | None], Any]
"""A person's `preprocess_logits_for_metrics`."""


@dataclass(frozen=True, eq=False)
class Collected:
    """(examples, ...) both, padded behind by -100 where batches differ in length; labels as the collator made them."""

    logits: NDArray[Any]
    labels: NDArray[Any] | None


def answers(
    model: nn.Module, task: Task, prepared: Prepared, *, batch_size: int, device: torch.device, precision: Precision,
    together: bool = False, reduce: Reduce | None = None, within: Within = directly,
) -> Collected:
    """The model's logits of every example, without gradients and in eval mode.

    together: the processes of `torch.distributed` share the work; all must call, and get all of it.

    Raises:
        CompatibilityError: `reduce` gives no tensor.
    """
    whole: list[list[int]] = list(loader(prepared, batch_size).batch_sampler)  # type: ignore[arg-type]
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    # who has one less answers the last again: all make as many forwards, as sharded models need
    mine = [whole[min(index, len(whole) - 1)] for index in range(rank, -(-len(whole) // world) * world, world)]
    parts: list[tuple[int, NDArray[Any], NDArray[Any] | None]] = []
    with evaluating(model, device, precision, within) as run:
        for places, batch in zip(mine, loader(prepared, batch_size, mine)):
            there = batch.to(device)
            labels = there.get("given", there.labels)
            said = task.outputs(run(there.student))
            kept = said if reduce is None else _tensor(reduce(said, labels))
            parts.append((places[0], _array(kept), None if labels is None else _array(labels)))
    if together:
        gathered: list[Any] = [None] * world
        distributed.all_gather_object(gathered, parts)
        parts = [part for share in gathered for part in share]
    ordered = [part for _, part in sorted({part[0]: part for part in parts}.items())]
    labels_of = [labels for _, _, labels in ordered if labels is not None]
    return Collected(_joined([logits for _, logits, _ in ordered]), _joined(labels_of) if labels_of else None)


def _tensor(reduced: Any) -> Tensor:
    if not isinstance(reduced, Tensor):
        raise CompatibilityError(f"preprocess_logits_for_metrics gave a {type(reduced).__name__}; expected a tensor, one "
                                 f"row per "
                                 "example")
    return reduced


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=0)
    return np.concatenate([part if part.ndim < 2 else np.pad(
        part, [(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)], constant_values=NO_ROW) for part in parts])


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy knows no bfloat16
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
