"""Whether a teacher is any better than chance: answers that do not look at the example."""

from __future__ import annotations

import math
import warnings

import numpy as np

from stilla.evaluate.quality import Asked, Resampling, bootstrap
from stilla.scores import Interval
from stilla.tasks.answers import Answers, Metric
from stilla.tasks.exam import Exam

_SHUFFLES = 20
"""Enough that the mean quality of random answers varies a fifth as much as one model's does."""


def chance(exam: Exam, answers: Answers, metric: Metric | None = None) -> float:
    """The better of two: the best constant answer (always the most frequent class, the mean, every token by how often it
    stands there), and the model's own answers, shuffled; as far as the exam has them.

    Always the most frequent class is what accuracy has to surpass; but its F1 is near 0, which any guess surpasses.

    Args:
        metric: by default the exam's first.

    Returns:
        0 where neither is defined (the correlation of a constant).
    """
    metric = metric or exam.metrics()[0]
    generator = np.random.default_rng(0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a constant's correlation
        constant = exam.constant(answers)
        levels = [] if constant is None else [metric.compute(constant, answers.references)]
        shuffled = (exam.shuffled(answers, generator) for _ in range(_SHUFFLES))  # one at a time: each is a copy
        values = [metric.compute(one, answers.references) for one in shuffled if one is not None]
        levels += [float(np.mean(values))] if values else []
    defined = [level for level in levels if math.isfinite(level)]
    return (max if metric.higher_is_better else min)(defined, default=0.0)


def compared_with_chance(
    exam: Exam, answers: Answers, *, resamples: int = 1000, seed: int = 0,
) -> tuple[Interval, float]:
    """The quality of the answers on the exam's first metric, with its 95 % interval, and chance.

    Raises:
        StillaError: answers that are not finite.
    """
    answers.check_finite("teacher")
    metric = exam.metrics()[0]
    asked = {"teacher": Asked(metric, [metric.statistics(answers.given, answers.references)])}
    sampled = bootstrap(asked, Resampling(len(answers), resamples, seed))["teacher"]
    return sampled.interval(seed), chance(exam, answers, metric)


def is_weak(exam: Exam, answers: Answers, *, resamples: int = 1000, seed: int = 0) -> bool:
    """Whether the teacher is no better than chance: the 95 % interval of its quality does not exclude it.

    An undefined quality (a correlation of constant answers) is weak.
    """
    quality, level = compared_with_chance(exam, answers, resamples=resamples, seed=seed)
    better = quality.low > level if exam.metrics()[0].higher_is_better else quality.high < level
    return not (math.isfinite(quality.value) and better)
