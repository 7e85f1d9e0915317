"""Whether a student's answers rest on what its teacher's do: integrated gradients of the teacher's answer (Sundararajan et
al. 2017, arXiv:1703.01365), compared by rank, example by example."""

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
from stilla.models.inputs import Read, chosen, reading
from stilla.scores import Interval
from stilla.signals import Batch, Side
from stilla.tasks.answers import Metric
from stilla.tasks.base import Task
from stilla.tasks.forward import dense

CELLS = 14
"""Cells across and down that pixels are summed in at most: single ones are compared by noise."""
PARTS = 100
"""Parts of equal length that a sound is summed in at most."""
LEAST = 3
"""Positions below which a correlation of ranks says nothing."""


@dataclass(frozen=True)
class Weighed:
    """What of each position answers rest on. there: which positions are. grid: rows and columns, where they are cells of
    pictures. classes: of which class of every row (`Task.attributed`). heard: where positions are parts of sounds, how loud
    each is: the mean of a wave's absolute values, or of a spectrogram."""

    weights: Float[NDArray[np.float64], "batch positions"]
    there: NDArray[np.bool_]
    classes: Int[Tensor, " rows"]
    grid: tuple[int, int] | None = None
    heard: Float[NDArray[np.float64], "batch positions"] | None = None


def integrated(
    model: nn.Module, task: Task, batch: Batch, side: Side, steps: int, classes: Int[Tensor, " rows"] | None = None
) -> Weighed:
    """What is read, times the mean of the gradient of the answer on the straight way to it from nothing (zeros: a mean
    picture, silence, tokens without a meaning), by Gauss and Legendre's points. The sum over all positions is what the answer
    gains on the way. classes: of which rows' logits it is the sum, by default those of the model's own answer.

    Raises:
        CompatibilityError: as for `reading` and `Task.attributed`.
    """
    inputs = batch.student if side is Side.STUDENT else batch.teacher
    with torch.enable_grad():
        with reading(model, inputs) as (said, read):
            logits = dense(task.signals(model(**said), batch, side))
            of = task.attributed(logits, batch) if classes is None else classes
            read.weighed(logits, of)  # refuses what cannot be
        assert read.tensor is not None  # it would have been refused
        whole = read.tensor.detach()
        mean = torch.zeros_like(whole)
        for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
            with reading(model, inputs, instead=(1 + place) / 2 * whole) as (said, on_the_way):
                logits = dense(task.signals(model(**said), batch, side))
                assert on_the_way.tensor is not None
                (gradient,) = torch.autograd.grad(chosen(logits, of), on_the_way.tensor)
            mean += weight / 2 * gradient
    return _by_position(mean * whole, whole, read, of)


def _by_position(numbers: Tensor, whole: Tensor, read: Read, classes: Tensor) -> Weighed:
    if numbers.dim() == 4:
        height, width = numbers.shape[2:]
        grid = min(height, CELLS), min(width, CELLS)
        summed = F.adaptive_avg_pool2d(numbers.sum(1, keepdim=True), grid).flatten(1)
        return Weighed(_plain(summed), np.ones(summed.shape, dtype=bool), classes, grid)
    summed = read.by_position(numbers)
    there = torch.ones_like(summed, dtype=torch.bool) if read.mask is None or read.mask.shape != summed.shape else read.mask
    if not read.sound:
        return Weighed(_plain(summed), there.cpu().numpy(), classes)
    lengths = there.sum(1)
    loud = read.by_position(whole.abs() if whole.dim() == 2 else whole)
    parts, sizes = _in_parts(summed, lengths), _in_parts(there.to(summed.dtype), lengths)
    return Weighed(_plain(parts), (sizes > 0).cpu().numpy(), classes,
                   heard=_plain(_in_parts(loud, lengths) / sizes.clamp_min(1)))


def _in_parts(numbers: Float[Tensor, "batch positions"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch parts"]:
    """Summed over so many parts of equal length of each example's own positions, which stand before padding: how wide a batch
    is has no part in it."""
    parts = min(PARTS, numbers.shape[1])
    place = torch.arange(numbers.shape[1], device=numbers.device) * parts // lengths.clamp(min=parts)[:, None]
    return torch.zeros(len(numbers), parts + 1, dtype=numbers.dtype, device=numbers.device).scatter_add_(
        1, place.clamp(max=parts), numbers)[:, :parts]


def _plain(numbers: Tensor) -> Float[NDArray[np.float64], "batch positions"]:
    return numbers.detach().double().cpu().numpy()


def agreement(one: Weighed, other: Weighed) -> Float[NDArray[np.float64], " batch"]:
    """Spearman's rank correlation of both over each example's positions; NaN where it says nothing: too few positions, or
    one of both the same everywhere."""
    found = np.full(len(one.weights), np.nan)
    for index, there in enumerate(one.there & other.there):
        ours, theirs = one.weights[index, there], other.weights[index, there]
        if there.sum() >= LEAST and np.ptp(ours) > 0 and np.ptp(theirs) > 0:
            found[index] = np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1]
    return found


def of_examples(
    values: Float[NDArray[np.float64], " windows"], keys: Int[NDArray[np.int64], " windows"]
) -> Float[NDArray[np.float64], " examples"]:
    """Of windows, the mean over those of each example that say something; NaN where none does."""
    _, owner = np.unique(keys, return_inverse=True)
    known = np.isfinite(values)
    count = np.bincount(owner, known)
    total = np.bincount(owner, np.where(known, values, 0.0))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


_MEAN = Metric("agreement", lambda given, references: given, from_sums=lambda sums: float(sums[0] / sums[1]),
               limits=(-1.0, 1.0), bounded=False)


def mean_of(values: Float[NDArray[np.float64], " examples"], *, resamples: int, seed: int) -> Interval:
    """Over examples of which something is known, with its 95 % bootstrap interval."""
    known = np.isfinite(values)
    table = np.stack([np.where(known, values, 0.0), known.astype(np.float64)], axis=1)
    return bootstrap({"mean": Asked(_MEAN, [table])}, Resampling(len(values), resamples, seed))["mean"].interval(seed)
