"""How long a model takes over a batch on this machine, and what it keeps for the backward: measured in moments.

On a CPU without what other processes take of it: a run of hours seldom shares the machine as this moment does.
"""

from __future__ import annotations

import bisect
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stilla.objectives import Labels
from stilla.recipe import Training
from stilla.rows import row_loss
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Side, Task
from stilla.tasks.forward import listen
from stilla.training.arguments import precision_of, runs_on_cpu

SECONDS = 0.03
"""Spent on measuring each kind of pass; a slow one is run once."""
MOST = 5
"""Times that a quick one is run."""


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
    """Seconds of a pass, and the bytes that are kept per example between forward and backward.

    `forward`: without gradient, in the precision of training. `answering`: likewise in the model's own, as scores are
    measured. `training`: forward and backward.
    """

    forward: Line
    answering: Line
    training: Line
    kept: float


def measure(task: Task, model: nn.Module, prepared: Prepared, side: Side, training: Training, *, train: bool) -> Passes:
    """Every kind of pass over few and over many examples, and what is kept between forward and backward.

    `train`: whether it will be trained; else only forwards are measured. Leaves the model on the CPU, its
    parameters as trainable as they were, its mode changed.
    """
    device = device_for(training)
    stopwatch = Stopwatch(device)
    half = precision_of(training) == "bfloat16"
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    model.to(device).eval()

    def forward(batch: Batch, lower: bool = half) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=lower):
            if task.vocabulary:  # as in training: whole logits would take more memory than the run itself
                said = listen(model, task, batch, side)
                assert said.logits is not None
                return row_loss([(Labels(), 1.0)], said.logits, None, said.labels, 0.0)[0]
            return task.outputs(model(**batch[side.value]))

    def without(batch: Batch) -> None:
        with torch.no_grad():
            forward(batch)

    def answering(batch: Batch) -> None:
        with torch.no_grad():
            forward(batch, lower=False)

    def with_backward(batch: Batch) -> None:
        forward(batch).float().sum().backward()
        model.zero_grad(set_to_none=True)

    def typical(examples: int) -> Batch:
        return _typical(prepared, examples).to(device)

    try:
        most = min(training.batch_size, len(prepared))
        sizes = [min(2, most)]  # batch norm cannot be trained on a single example
        few = typical(sizes[0])
        first = stopwatch(lambda: without(few))
        sizes.append(min(most, max(4, round(2 * SECONDS * sizes[0] / first))))
        many = typical(sizes[1])
        quick = _line(first, stopwatch(lambda: without(many), warm=True), *sizes)
        # in its own precision nothing is cast for every pass: one size will do
        alone = Line(0.0, stopwatch(lambda: answering(many), warm=True) / sizes[1]) if half else quick
        slow, kept = quick, None
        if train:
            model.train().requires_grad_(True)
            # the first call, which pays for what is made once, is the one that is looked into
            kept = _line(_kept(model, lambda: with_backward(few)), _kept(model, lambda: with_backward(many)), *sizes)
            least = stopwatch(lambda: with_backward(few), warm=True)
            slow = _line(least, stopwatch(lambda: with_backward(many), warm=True), *sizes)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.cpu()
    # the line's slope leaves out what every batch keeps once: weights cast to the precision of the computation
    return Passes(quick, alone, slow, kept.per_example if kept else 0.0)


def device_for(training: Training) -> str:
    return "cpu" if runs_on_cpu(training) else str(torch.accelerator.current_accelerator())


def _line(least: float, most: float, few: int, many: int) -> Line:
    """Through what few examples and many took; what does not lie on a line counts per example."""
    slope = (most - least) / (many - few) if many > few else 0.0
    per_example = slope if 0 < slope < most / many else most / many
    return Line(most - many * per_example, per_example)


@dataclass(frozen=True)
class Stopwatch:
    """Seconds of a call on a device, as if it had the machine for itself."""

    device: str

    def __call__(self, run: Callable[[], object], *, warm: bool = False) -> float:
        """The usual of a few calls. `warm`: what only a first call pays for was paid before."""
        if not warm:
            cold = self._once(run)
            if cold > 4 * SECONDS:
                return cold  # the cost of a first call hardly shows in a slow one
        times: list[float] = []
        while sum(times) < SECONDS and len(times) < MOST:
            times.append(self._once(run))
        return statistics.median(times)

    def _once(self, run: Callable[[], object]) -> float:
        started = self._now()
        run()
        return self._now() - started

    def _now(self) -> float:
        if self.device != "cpu":
            torch.accelerator.synchronize()
            return time.perf_counter()
        # the thread that calls has a share in every computation; while others have the processor, its clock stands
        return time.thread_time()


def _kept(model: nn.Module, run: Callable[[], None]) -> float:
    """The bytes that autograd keeps of forwards in a call, weights apart and every storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return float(sum(seen.values()))


def _typical(prepared: Prepared, examples: int) -> Batch:
    """So many examples of about the mean length: what a whole epoch takes goes by that."""
    order = list(range(len(prepared)))
    centre = len(order) // 2
    if prepared.lengths is not None:
        lengths = prepared.lengths
        order.sort(key=lambda index: lengths[index])
        centre = bisect.bisect_left(order, statistics.fmean(lengths), key=lambda index: lengths[index])
    start = min(max(0, centre - examples // 2), len(order) - examples)
    return prepared.collate([prepared.examples[index] for index in order[start : start + examples]])
