"""What one gets without looking at the examples, and whether a teacher is better than that."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.evaluate.predict import Predictions
from stilla.evaluate.quality import Asked, Resampling, bootstrap
from stilla.scores import Interval
from stilla.tasks.base import Metric, Task
from stilla.tasks.language.vocabulary import CONFIDENCE, NLL, TOP
from stilla.tasks.text.sequences import NO_ROW

_SHUFFLES = 20
"""Enough that the mean quality of random answers varies a fifth as much as one model's does."""


def chance(task: Task, predictions: Predictions, metric: Metric | None = None) -> float:
    """The better of two: always the most frequent class (or the mean), and the model's own answers, shuffled.

    Over a vocabulary, every token by how often it stands among the labels: their unigram perplexity, which nothing
    that does not look at the text can surpass.

    Always the most frequent class (of several labels, each label's) is what accuracy has to surpass; but its
    F1 is near 0, which any guess surpasses.

    Args:
        metric: by default the task's first.

    Returns:
        0 where neither is defined (the correlation of a constant).
    """
    metric = metric or task.metrics()[0]
    outputs, labels = predictions.outputs, predictions.labels
    if task.vocabulary:
        return metric.compute(_by_frequency(labels), labels)
    constant = labels.mean() if not task.class_names() else _prior_logits(labels, len(task.class_names()))
    generator = np.random.default_rng(0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a constant's correlation
        always = metric.compute(np.broadcast_to(constant, outputs.shape), labels)
        shuffled = [metric.compute(generator.permutation(outputs), labels) for _ in range(_SHUFFLES)]
    levels = [always, float(np.mean(shuffled))]
    defined = [level for level in levels if math.isfinite(level)]
    return (max if metric.higher_is_better else min)(defined, default=0.0)


def compared_with_chance(
    task: Task, predictions: Predictions, *, resamples: int = 1000, seed: int = 0,
) -> tuple[Interval, float]:
    """The quality of the predictions on the task's first metric, with its 95 % interval, and chance.

    Raises:
        StillaError: predictions that are not finite.
    """
    predictions.check_finite("teacher")
    metric = task.metrics()[0]
    asked = {"teacher": Asked(metric, [(predictions.outputs, predictions.labels)])}
    sampled = bootstrap(asked, Resampling(len(predictions), resamples, seed))["teacher"]
    return sampled.interval(seed), chance(task, predictions, metric)


def is_weak(task: Task, predictions: Predictions, *, resamples: int = 1000, seed: int = 0) -> bool:
    """Whether the teacher is no better than chance: the 95 % interval of its quality does not exclude it.

    An undefined quality (a correlation of constant predictions) is weak.
    """
    quality, level = compared_with_chance(task, predictions, resamples=resamples, seed=seed)
    better = quality.low > level if task.metrics()[0].higher_is_better else quality.high < level
    return not (math.isfinite(quality.value) and better)


def _by_frequency(labels: NDArray[Any]) -> NDArray[np.float64]:
    """(examples, positions, 3): the columns of a model that always says the labels' own frequencies."""
    there = labels != NO_ROW
    counts = np.bincount(labels[there].astype(np.int64))
    log_frequency = np.log(np.maximum(counts, 1e-9) / max(1, counts.sum()))
    columns = np.zeros((*labels.shape, 3))
    columns[..., NLL] = -log_frequency[np.where(there, labels, 0).astype(np.int64)]
    columns[..., TOP], columns[..., CONFIDENCE] = counts.argmax(), log_frequency.max()
    return columns


def _prior_logits(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """(classes,): log frequency of each class; of several labels each label's log odds."""
    if labels.ndim == 1:
        counts = np.bincount(labels.astype(np.int64), minlength=classes)
        logits: NDArray[np.float64] = np.log(np.maximum(counts, 1e-9) / len(labels))
        return logits
    frequency = np.clip(labels.mean(axis=0), 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(frequency) - np.log1p(-frequency)
    return odds
