"""How long a model takes over a batch on this machine, and what it keeps for the backward: measured in moments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stilla.recipe import Training
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Side, Task
from stilla.training_arguments import precision_of, runs_on_cpu

SECONDS = 0.05
"""Spent on measuring each kind of pass; a slow one is run once."""


@dataclass(frozen=True)
class Line:
    """Seconds of a pass over a batch: casting weights and writing their gradients costs the same for any batch."""

    per_pass: float
    per_example: float

    def __call__(self, examples: float, batch_size: int) -> float:
        """Seconds for so many examples in batches of this size."""
        return examples * (self.per_example + self.per_pass / batch_size)


@dataclass(frozen=True)
class Passes:
    """What one model takes: without gradient, forward and backward, and the bytes kept per example between them."""

    forward: Line
    training: Line
    kept: float


def measure(task: Task, model: nn.Module, prepared: Prepared, side: Side, training: Training, *, train: bool) -> Passes:
    """A forward without gradient, forward and backward, and what is kept between them.

    `train`: whether it will be trained; else only the forward is measured. Leaves the model on the CPU, its
    parameters as trainable as they were, its mode changed.
    """
    device = "cpu" if runs_on_cpu(training) else str(torch.accelerator.current_accelerator())
    half = precision_of(training) == "bfloat16"
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    model.to(device).train(train)
    if train:
        model.requires_grad_(True)

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return task.outputs(model(**inputs))

    def without(inputs: dict[str, Tensor]) -> None:
        with torch.no_grad():
            forward(inputs)
        _wait(device)

    def with_backward(inputs: dict[str, Tensor]) -> None:
        forward(inputs).float().sum().backward()
        model.zero_grad(set_to_none=True)
        _wait(device)

    def typical(examples: int) -> dict[str, Tensor]:
        return dict(_typical(prepared, examples).to(device)[side.value])

    try:
        alone = _seconds(without, typical(1))
        examples = min(training.batch_size, len(prepared), max(4, round(2 * SECONDS / alone)))
        one, many = typical(1), typical(examples)
        quick = _line(alone, _seconds(without, many), examples)
        slow = _line(_seconds(with_backward, one), _seconds(with_backward, many), examples) if train else quick
        kept = _kept(model, lambda: forward(one)) if train else 0.0
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.cpu()
    return Passes(quick, slow, kept)


def _line(one: float, many: float, examples: int) -> Line:
    """Through what one example and many took."""
    if examples == 1 or many <= one:
        return Line(0.0, many / examples)
    per_example = min((many - one) / (examples - 1), many / examples)
    return Line(max(0.0, one - per_example), per_example)


def _seconds(run: Callable[[dict[str, Tensor]], None], inputs: dict[str, Tensor]) -> float:
    """The fastest of a few calls: the first pays for what is made once, others may have been disturbed."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < SECONDS:
        started = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - started)
        if sum(times) > 4 * SECONDS:
            break  # a slow model, or a busy machine: one call has to do
    return min(times)


def _kept(model: nn.Module, forward: Callable[[], Tensor]) -> float:
    """The bytes that autograd keeps of a forward, weights apart and every storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return float(sum(seen.values()))


def _typical(prepared: Prepared, examples: int) -> Batch:
    """So many examples from the middle of the lengths."""
    lengths = prepared.lengths
    order = sorted(range(len(prepared)), key=lambda index: 0 if lengths is None else lengths[index])
    start = (len(order) - examples) // 2
    return prepared.collate([prepared.examples[index] for index in order[start : start + examples]])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


