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


Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Line:
    """What a pass over a batch takes, part of it whatever its size: casting weights, writing their gradients."""

    per_pass: float
    per_example: float

    def __call__(self, examples: float, batch_size: int) -> float:
        """For so many examples in batches of this size."""
        return examples * (self.per_example + self.per_pass / batch_size)


@dataclass(frozen=True)
class Passes:
    """Seconds of a forward without gradient, of forward and backward, and the bytes kept per example between them."""

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

    def forward(inputs: Inputs) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return task.outputs(model(**inputs))

    def without(inputs: Inputs) -> None:
        with torch.no_grad():
            forward(inputs)
        _wait(device)

    def with_backward(inputs: Inputs) -> None:
        forward(inputs).float().sum().backward()
        model.zero_grad(set_to_none=True)
        _wait(device)

    def typical(examples: int) -> Inputs:
        return dict(_typical(prepared, examples).to(device)[side.value])

    try:
        most = min(training.batch_size, len(prepared))
        sizes = [min(2, most)]  # batch norm cannot be trained on a single example
        few = typical(sizes[0])
        first = _seconds(without, few)
        sizes.append(min(most, max(4, round(2 * SECONDS * sizes[0] / first))))
        many = typical(sizes[1])
        quick = _line(first, _seconds(without, many), *sizes)
        slow = _line(_seconds(with_backward, few), _seconds(with_backward, many), *sizes) if train else quick
        # the difference leaves out what every batch keeps once: weights cast to the precision of the computation
        kept = _line(_kept(model, lambda: forward(few)), _kept(model, lambda: forward(many)), *sizes) if train else None
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.cpu()
    return Passes(quick, slow, kept.per_example if kept else 0.0)


def _line(least: float, most: float, few: int, many: int) -> Line:
    """Through what few examples and many took; what does not lie on a line counts per example."""
    slope = (most - least) / (many - few) if many > few else 0.0
    per_example = slope if 0 < slope < most / many else most / many
    return Line(most - many * per_example, per_example)


def _seconds(run: Callable[[Inputs], None], inputs: Inputs) -> float:
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
