"""A model's answers to one split, in the order of the split: what every score is computed from.

Live models and exported files go through the same function, so their numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from stilla.errors import DataError, StillaError
from stilla.narrate import progress
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Side, Task

Inputs = Mapping[str, Tensor]
"""Keyword arguments of a forward."""

Forward = nn.Module | Callable[[Inputs], Tensor]
"""A model, or a function from inputs to what `Task.outputs` would give (an exported file)."""

Precision = Literal["float32", "bfloat16"]
"""Of the computation: `float32` runs a model as it is, `bfloat16` under autocast."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of one model on one split, examples first and in the order of the split.

    `keys`: (examples,) index of each example in the split. `outputs`: (examples, ...) as `Task.outputs` gives
    them. `labels`: (examples, ...) what metrics compare with.

    Raises:
        StillaError: the three differ in their number of examples, or hold Python objects.
    """

    keys: Int[NDArray[np.int64], "examples"]
    outputs: NDArray[Any]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        arrays = {"keys": self.keys, "outputs": self.outputs, "labels": self.labels}
        if len({len(array) for array in arrays.values()}) > 1:
            sizes = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
            raise StillaError(f"predictions: got {sizes}; expected one of each per example")
        for name, array in arrays.items():
            if array.dtype.hasobject:  # would be written as a pickle
                raise StillaError(f"predictions: {name} hold Python objects; expected numbers")

    def __len__(self) -> int:
        return len(self.keys)

    def save(self, path: Path) -> None:
        """Write as `.npz`, so that a run can be scored again without its models; `load` reads it back."""
        with path.open("wb") as file:
            np.savez(file, keys=self.keys, outputs=self.outputs, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["keys"], arrays["outputs"], arrays["labels"])

    def check_finite(self, whose: str) -> None:
        """Raise a StillaError that names `whose` predictions they are and the first examples not finite."""
        bad = ~np.isfinite(self.outputs.reshape(len(self), -1)).all(axis=1)
        if bad.any():
            first = ", ".join(str(key) for key in self.keys[bad][:5])
            raise StillaError(
                f"{whose}: {bad.sum()} of {len(self)} predictions are NaN or infinite, first for examples "
                f"{first}. No score can be computed from them: train with `precision: float32` or a lower "
                "`learning_rate`, and look at these examples")


def predict(
    forward: Forward,
    task: Task,
    prepared: Prepared,
    *,
    side: Side,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    precision: Precision = "float32",
    labels: NDArray[Any] | None = None,
    together: bool = False,
    title: str = "predicting",
) -> Predictions:
    """Answer every example of a split once, without gradients and in eval mode; the model's mode is restored.

    Examples of similar length are batched together and put back in order. Nothing is drawn from the global
    random generators.

    Args:
        side: whose inputs of a batch the model gets.
        device: where the model is and inputs go; by default its first parameter's, the CPU for a function.
        labels: what metrics compare with (`Task.references`); by default the labels of the batches.
        together: the processes of `torch.distributed` share the work; all must call, and get all of it.
            Each makes the same number of forwards, as sharded models need.
        title: of the progress bar.

    Raises:
        DataError: no examples, or no labels.
    """
    if not len(prepared.keys):
        raise DataError("no examples to evaluate on: the split is empty")
    place = torch.device(device) if device is not None else _device(forward)
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    batches = _by_length(prepared, batch_size)
    mine = _share(batches, rank, world)
    # a generator of its own: the loader would draw its seed from the global one, and resuming would differ
    loader = DataLoader(prepared.examples, batch_sampler=mine, collate_fn=prepared.collate,
                        generator=torch.Generator())
    parts: list[tuple[list[int], NDArray[Any], NDArray[Any] | None]] = []
    with answering(forward, task, place, precision) as answer, \
            progress(title, len(prepared.keys) // world, show=rank == 0) as advance:
        for positions, batch in zip(mine, loader):
            _check_keys(batch, prepared.keys[positions])
            outputs = answer(batch.to(place)[side.value])
            parts.append((positions, _array(outputs), None if batch.labels is None else _array(batch.labels)))
            advance(len(positions))
    if together:
        gathered: list[Any] = [None] * world
        distributed.all_gather_object(gathered, parts)
        parts = [part for share in gathered for part in share]
    order, outputs_array, batch_labels = _in_order(parts)
    if labels is None:
        if batch_labels is None:
            raise DataError("the examples have no labels: nothing to compare predictions with")
        labels = batch_labels
    return Predictions(prepared.keys[order], outputs_array, labels)


@contextmanager
def evaluating(
    forward: Forward, device: torch.device, precision: Precision,
) -> Iterator[Callable[[Inputs], Any]]:
    """The forward as a function of its inputs: eval mode, no gradients; each module's mode is restored."""
    if not isinstance(forward, nn.Module):
        yield forward
        return
    model = forward
    modes = [(module, module.training) for module in model.modules()]
    dtype = _dtype(model)

    def run(inputs: Inputs) -> Any:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return model(**_cast(inputs, dtype))

    model.eval()
    try:
        yield run
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def answering(
    forward: Forward, task: Task, device: torch.device, precision: Precision = "float32",
) -> Iterator[Callable[[Inputs], Tensor]]:
    """Like `evaluating`, but gives what predictions are made of, whatever the forward is."""
    with evaluating(forward, device, precision) as run:
        yield (lambda inputs: task.outputs(run(inputs))) if isinstance(forward, nn.Module) else run


def _by_length(prepared: Prepared, batch_size: int) -> list[list[int]]:
    """Positions in batches, the longest examples first: what does not fit into memory then fails at once."""
    order = np.arange(len(prepared.keys))
    if prepared.lengths is not None:
        order = np.argsort(-np.asarray(prepared.lengths), kind="stable")
    return [order[start:start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def _share(batches: list[list[int]], rank: int, world: int) -> list[list[int]]:
    """Every `world`-th batch; who has one less answers the last again: all make as many forwards."""
    mine = batches[rank::world]
    return mine if len(mine) == -(-len(batches) // world) else [*mine, batches[-1]]


def _in_order(
    parts: Sequence[tuple[list[int], NDArray[Any], NDArray[Any] | None]],
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any] | None]:
    """Positions 0, 1, 2 ... with their outputs and labels, each once."""
    positions, where = np.unique(np.concatenate([positions for positions, _, _ in parts]), return_index=True)
    outputs = np.concatenate([outputs for _, outputs, _ in parts])[where]
    labels = [labels for _, _, labels in parts if labels is not None]
    return positions, outputs, np.concatenate(labels)[where] if labels else None


def _check_keys(batch: Batch, expected: NDArray[np.int64]) -> None:
    """Predictions joined to the wrong examples would be wrong without a sign."""
    if batch.keys_ is not None and not np.array_equal(_array(batch.keys_), expected):
        raise DataError(f"a batch holds the examples {_array(batch.keys_)[:5]}, expected {expected[:5]}: the "
                        "collator must keep the order of its examples")


def _device(forward: Forward) -> torch.device:
    first = next(forward.parameters(), None) if isinstance(forward, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def _dtype(model: nn.Module) -> torch.dtype:
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Pictures come as float32, also to a model whose weights are bfloat16."""
    if dtype == torch.float32:
        return inputs
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy knows no bfloat16
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
