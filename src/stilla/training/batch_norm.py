"""Layers that normalise by the batch they see (BatchNorm: ResNet, RegNet, EfficientNet, MobileNet), in a step that is cut.

All else of a step is a sum over its examples, whatever its micro-batches and processes are. These layers are not: each
micro-batch is normalised by its own mean and variance, and running statistics, by which the finished model normalises,
follow one micro-batch after the other. So with `model`

- a step of several micro-batches is near one of one batch, and not the same, which is said;
- several processes have the mean of their running statistics after every step, or only what the first one saw would be saved;
- a micro-batch of a single example, which has no spread, and one that stands in for none are normalised by the running
  statistics, and leave these as they are.

With `frozen` running statistics stay what they were, and normalise in training too: then any cut is the same step again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import CompatibilityError, all_at_once
from stilla.models.features import replacing

logger = logging.getLogger(__name__)

BatchNorm = Literal["model", "frozen"]


def batch_norms(model: nn.Module) -> tuple[_BatchNorm, ...]:
    """Those with running statistics; the others look at every batch, in evaluation too."""
    return tuple(one for one in model.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None)


def settle_batch_norm(student: nn.Module, how: BatchNorm, args: TrainingArguments) -> None:
    """Refuse what would train wrongly, and say what a cut step makes of these layers.

    Raises:
        CompatibilityError: no such layers, or no statistics, to freeze; one example at a time.
    """
    norms, name = batch_norms(student), type(student).__name__
    problems = []
    if how == "frozen" and not norms:
        problems.append(f"batch_norm: got frozen, and {name} has no layer that normalises by the batch; leave it out")
    if how == "frozen" and norms and all(map(_is_new, norms)):
        problems.append(f"batch_norm: got frozen, and {name} has random weights: its running statistics (mean 0, variance "
                        "1) are of no data, and would stay so. Leave it out, or start from a trained model")
    alone = args.per_device_train_batch_size == 1
    if how == "model" and norms and alone:
        problems.append(f"batch_size: got 1, and {name} normalises by the batch (BatchNorm), of which one example has no "
                        "spread. Use 2 or more, or batch_norm: frozen where its running statistics are of a trained model")
    if problems:
        raise all_at_once(problems, CompatibilityError)
    pieces = args.gradient_accumulation_steps * args.world_size
    if how == "model" and norms and pieces > 1:
        logger.warning("%s normalises by the batch (BatchNorm): each of a step's %d micro-batches of %d examples by "
                       "itself, so that another cut of the step gives other losses. One larger batch, or batch_norm: frozen, "
                       "has no such difference", name, pieces, args.per_device_train_batch_size)


@contextmanager
def by_running_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, they normalise as in evaluation, and learn no statistics; their gradients are right for one example too."""
    before = [one.training for one in norms]
    for one in norms:
        one.training = False
    try:
        with ExitStack() as within:
            for one in norms:
                within.enter_context(replacing(one, _with_plain_gradient))
            yield
    finally:
        for one, training in zip(norms, before, strict=True):
            one.training = training


def _with_plain_gradient(output: Tensor) -> Tensor:
    """The gradient of one example's map that is then read as a sequence (RT-DETR, D-FINE) has strides that fit two orders, of
    which torch's batch norm on the CPU (2.13) takes the wrong one: other gradients, as large as the right ones."""
    if output.requires_grad and len(output) == 1:
        output.register_hook(lambda gradient: gradient.clone(memory_format=torch.contiguous_format))
    return output


class SharedStatistics(TrainerCallback):
    """After every step all processes have the mean of their running statistics; before anything looks at them."""

    def __init__(self, student: nn.Module) -> None:
        self.norms = batch_norms(student)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size < 2 or not self.norms:
            return
        there = [one for norm in self.norms for one in (norm.running_mean, norm.running_var) if one is not None]
        together = torch.cat([one.flatten().double() for one in there])
        torch.distributed.all_reduce(together)
        for one, mean in zip(there, (together / args.world_size).split([one.numel() for one in there]), strict=True):
            one.copy_(mean.view_as(one))
        counts = torch.stack([_count(norm, together.device) for norm in self.norms])
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)  # a process without an example has counted less
        for norm, count in zip(self.norms, counts, strict=True):
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


def _count(norm: _BatchNorm, device: torch.device) -> Tensor:
    seen = norm.num_batches_tracked
    return torch.zeros((), dtype=torch.int64, device=device) if seen is None else seen


def _is_new(norm: _BatchNorm) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return not norm.running_mean.any() and bool((norm.running_var == 1).all())
