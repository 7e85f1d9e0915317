"""A model's answers to one split, in the order of the split: what every score is computed from.

Live models and exported files go through the same function, so their numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from stilla.evaluate.vocabulary import ask, measured, side_by_side, unused_mass
from stilla.runtime.narrate import progress
from stilla.signals import Batch, Signals
from stilla.tasks.base import Prepared, Side, Task
from stilla.tasks.text.sequences import NO_ROW

Inputs = Mapping[str, Tensor]
"""Keyword arguments of a forward."""

Forward = nn.Module | Callable[[Inputs], Tensor]
"""A model, or a function from inputs to what `Task.outputs` would give (an exported file)."""

Precision = Literal["float32", "bfloat16"]
"""Of the computation: `float32` runs a model as it is, `bfloat16` under autocast."""


_WORTH_A_WORD = 1e-3


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
    place = torch.device(device) if device is not None else _device(forward)
    with answering(forward, task, place, precision) as answer:
        found = _walk({"": lambda batch: answer(batch, side)}, prepared, batch_size, place, labels=labels,
                      together=together, title=title)
    return found[""]


def predict_beside(
    teacher: nn.Module,
    others: Mapping[str, Forward],
    task: Task,
    prepared: Prepared,
    *,
    batch_size: int = 32,
    title: str = "predicting",
) -> dict[str, Predictions]:
    """A teacher over a vocabulary and other subjects, all asked about one batch at a time, so that each can be compared
    with the teacher row by row and no logits are kept. The teacher's come under `teacher`.

    Raises:
        DataError: no examples.
    """
    place = _device(teacher)
    with ExitStack() as stack:
        ask_teacher = stack.enter_context(_asking(teacher, task, place, "float32"))
        ways = {name: stack.enter_context(_asking(one, task, place, "float32")) for name, one in others.items()}
        last: list[tuple[Batch, Signals]] = []

        def said(batch: Batch) -> Signals:
            if not last or last[0][0] is not batch:
                last[:] = [(batch, ask_teacher(batch, Side.TEACHER))]
            return last[0][1]

        def compared(asked: Ask) -> Callable[[Batch], Tensor]:
            return lambda batch: measured(task, asked(batch, Side.STUDENT), batch, said(batch))

        answers = {"teacher": lambda batch: measured(task, said(batch), batch)}
        answers |= {name: compared(way) for name, way in ways.items()}
        return _walk(answers, prepared, batch_size, place, title=title)


def unused_outputs(
    task: Task, prepared: Prepared, models: Mapping[str, tuple[nn.Module, Side]], *, examples: int = 8
) -> tuple[str, ...]:
    """Notes on what models over a vocabulary say that no token stands for, where that is worth a word.

    Every score is over the tokens in use; a model that is deployed chooses among all of its outputs.
    """
    notes = []
    for name, (model, side) in models.items():
        place = _device(model)
        some = np.linspace(0, len(prepared) - 1, min(examples, len(prepared))).astype(int)
        batch = prepared.collate([prepared.examples[int(one)] for one in some]).to(place)
        with _asking(model, task, place, "float32") as said:
            mass = unused_mass(said(batch, side), task, batch)
        if mass > _WORTH_A_WORD:
            notes.append(f"{name}: {mass:.1%} of its probability lies on outputs that no token uses (a padded vocabulary); "
                         "scores leave them out, whoever generates with it should too")
    return tuple(notes)


def _walk(
    answers: Mapping[str, Callable[[Batch], Tensor]],
    prepared: Prepared,
    batch_size: int,
    place: torch.device,
    *,
    labels: NDArray[Any] | None = None,
    together: bool = False,
    title: str,
) -> dict[str, Predictions]:
    """Every answer to every batch of a split, in the order of the split."""
    if not len(prepared.keys):
        raise DataError("no examples to evaluate on: the split is empty")
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    batches = _by_length(prepared, batch_size)
    mine = _share(batches, rank, world)
    # a generator of its own: the loader would draw its seed from the global one, and resuming would differ
    loader = DataLoader(prepared.examples, batch_sampler=mine, collate_fn=prepared.collate,
                        generator=torch.Generator())
    parts: list[tuple[list[int], dict[str, NDArray[Any]], NDArray[Any] | None]] = []
    with progress(title, len(prepared.keys) // world, show=rank == 0) as advance:
        for positions, batch in zip(mine, loader):
            _check_keys(batch, prepared.keys[positions])
            there = batch.to(place)
            said = {name: _array(answer(there)) for name, answer in answers.items()}
            parts.append((positions, said, None if batch.labels is None else _array(batch.labels)))
            advance(len(positions))
    if together:
        gathered: list[Any] = [None] * world
        distributed.all_gather_object(gathered, parts)
        parts = [part for share in gathered for part in share]
    order, outputs, batch_labels = _in_order(parts)
    labels = batch_labels if labels is None else labels
    if labels is None:
        raise DataError("the examples have no labels: nothing to compare predictions with")
    return {name: Predictions(prepared.keys[order], one, labels) for name, one in outputs.items()}


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


Ask = Callable[[Batch, Side], Signals]


@contextmanager
def answering(
    forward: Forward, task: Task, device: torch.device, precision: Precision = "float32",
) -> Iterator[Callable[[Batch, Side], Tensor]]:
    """Like `evaluating`, but gives what predictions are made of, whatever the forward is."""
    if task.vocabulary:
        with _asking(forward, task, device, precision) as said:
            yield lambda batch, side: measured(task, said(batch, side), batch)
        return
    with evaluating(forward, device, precision) as run:
        inside = isinstance(forward, nn.Module)
        yield lambda batch, side: task.outputs(run(batch[side.value])) if inside else run(batch[side.value])


@contextmanager
def _asking(forward: Forward, task: Task, device: torch.device, precision: Precision) -> Iterator[Ask]:
    """What a model over a vocabulary says about a batch; eval mode, no gradients."""
    with evaluating(forward, device, precision):

        def asked(batch: Batch, side: Side) -> Signals:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                return ask(forward, task, batch, side)

        yield asked


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
    parts: Sequence[tuple[list[int], dict[str, NDArray[Any]], NDArray[Any] | None]],
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Positions 0, 1, 2 ... with the outputs of each answer and their labels, each once."""
    positions, where = np.unique(np.concatenate([positions for positions, _, _ in parts]), return_index=True)
    outputs = {name: side_by_side([said[name] for _, said, _ in parts], 0)[where] for name in parts[0][1]}
    labels = [labels for _, _, labels in parts if labels is not None]
    return positions, outputs, side_by_side(labels, NO_ROW)[where] if labels else None


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
