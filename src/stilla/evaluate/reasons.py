"""Whether a student's answers rest on what its teacher's do: integrated gradients of the teacher's class (Sundararajan et al.
2017, arXiv:1703.01365), compared by rank, example by example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from stilla.evaluate.quality import Asked, Resampling, bootstrap
from stilla.models.inputs import Read, reading
from stilla.scores import Interval
from stilla.signals import Batch, Side
from stilla.tasks.answers import Metric
from stilla.tasks.base import Task
from stilla.tasks.forward import dense

CELLS = 14
"""Cells across and down that pixels are summed in at most: single ones are compared by noise."""
LEAST = 3
"""Positions below which a correlation of ranks says nothing."""


@dataclass(frozen=True)
class Weighed:
    """What of each position answers rest on. there: which positions are. grid: rows and columns, where they are cells of
    pictures. classes: of which class."""

    weights: Float[NDArray[np.float64], "batch positions"]
    there: NDArray[np.bool_]
    classes: Int[Tensor, " batch"]
    grid: tuple[int, int] | None = None


def integrated(
    model: nn.Module, task: Task, batch: Batch, side: Side, steps: int, classes: Int[Tensor, " batch"] | None = None
) -> Weighed:
    """What is read, times the mean of the gradient of the class's logit on the straight way to it from nothing (zeros: a mean
    picture, tokens without a meaning), by Gauss and Legendre's points. The sum over all positions is what the logit gains on
    the way. classes: by default the likeliest.

    Raises:
        CompatibilityError: as for `reading`, and answers that are not of an example each.
    """
    inputs = batch.student if side is Side.STUDENT else batch.teacher
    with torch.enable_grad():
        with reading(model, inputs) as (said, read):
            logits = dense(task.signals(model(**said), batch, side))
            of = logits.argmax(-1) if classes is None else classes
            read.weighed(logits, of)  # refuses what cannot be
        assert read.tensor is not None  # it would have been refused
        whole = read.tensor.detach()
        mean = torch.zeros_like(whole)
        for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
            with reading(model, inputs, instead=(1 + place) / 2 * whole) as (said, on_the_way):
                logits = dense(task.signals(model(**said), batch, side))
                assert on_the_way.tensor is not None
                (gradient,) = torch.autograd.grad(logits.gather(1, of[:, None]).sum(), on_the_way.tensor)
            mean += weight / 2 * gradient
    return _by_position(mean * whole, read, of)


def _by_position(numbers: Tensor, read: Read, classes: Tensor) -> Weighed:
    grid, mask = None, read.mask
    if numbers.dim() == 4:
        height, width = numbers.shape[2:]
        grid = min(height, CELLS), min(width, CELLS)
        summed = F.adaptive_avg_pool2d(numbers.sum(1, keepdim=True), grid).flatten(1)
    else:
        summed = read.by_position(numbers)
    there = torch.ones_like(summed, dtype=torch.bool) if mask is None or mask.shape != summed.shape else mask
    return Weighed(summed.detach().double().cpu().numpy(), there.cpu().numpy(), classes, grid)


def agreement(one: Weighed, other: Weighed) -> Float[NDArray[np.float64], " batch"]:
    """Spearman's rank correlation of both over each example's positions; NaN where it says nothing: too few positions, or
    one of both the same everywhere."""
    found = np.full(len(one.weights), np.nan)
    for index, there in enumerate(one.there & other.there):
        ours, theirs = one.weights[index, there], other.weights[index, there]
        if there.sum() >= LEAST and np.ptp(ours) > 0 and np.ptp(theirs) > 0:
            found[index] = np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1]
    return found


_MEAN = Metric("agreement", lambda given, references: given, from_sums=lambda sums: float(sums[0] / sums[1]),
               limits=(-1.0, 1.0), bounded=False)


def mean_of(values: Float[NDArray[np.float64], " examples"], *, resamples: int, seed: int) -> Interval:
    """Over examples of which something is known, with its 95 % bootstrap interval."""
    known = np.isfinite(values)
    table = np.stack([np.where(known, values, 0.0), known.astype(np.float64)], axis=1)
    return bootstrap({"mean": Asked(_MEAN, [table])}, Resampling(len(values), resamples, seed))["mean"].interval(seed)
