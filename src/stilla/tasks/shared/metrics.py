"""Metrics of classifiers and regressors, in sums over examples, so that resampling is a matrix product.

Every value is scikit-learn's, its treatment of absent classes included; tests hold that.
`outputs` are logits: (examples, classes), (examples, labels), or (examples, 1) for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.tasks.answers import NO_ANSWER, Metric

Array = NDArray[Any]


def single_label() -> tuple[Metric, ...]:
    return (
        by_sums("accuracy", _hits, _mean),
        by_sums("macro_f1", _class_counts, lambda sums: _over_classes(sums, _f1)),
        by_sums("macro_precision", _class_counts, lambda sums: _over_classes(sums, _precision)),
        by_sums("macro_recall", _class_counts, lambda sums: _over_classes(sums, _recall)),
        by_sums("matthews", _class_counts, _matthews, bounded=False, limits=(-1.0, 1.0)),
    )


def among(most: int) -> Metric:
    """Whether the label is among so many likeliest classes; classes as likely as the label do not count against it."""
    def hits(logits: Array, labels: Array) -> Array:
        own = logits[np.arange(len(labels)), labels]
        return _counted((logits > own[:, None]).sum(-1) < most)

    return by_sums(f"top_{most}_accuracy", hits, _mean)


def multi_label() -> tuple[Metric, ...]:
    return (
        by_sums("micro_f1", _flag_counts, lambda sums: float(_f1(*_thirds(sums).sum(1)))),
        by_sums("macro_f1", _flag_counts, lambda sums: float(_f1(*_thirds(sums)).mean())),
        by_sums("micro_precision", _flag_counts, lambda sums: float(_precision(*_thirds(sums).sum(1)))),
        by_sums("micro_recall", _flag_counts, lambda sums: float(_recall(*_thirds(sums).sum(1)))),
        by_sums("subset_accuracy", _whole_hits, _mean),
    )


def average_precision() -> Metric:
    """Mean over the labels that occur of the average precision: what sounds and pictures with several labels are compared by
    (AudioSet's mAP). A label that no example has says nothing."""
    return Metric("mean_average_precision", _scored, from_list=_average_precision)


def regression(outputs: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Of one number, or of several by these names: then each metric is the mean over them, but for the error, which is said
    of each in its own unit."""
    if len(outputs) > 1:
        return several_numbers(outputs)
    # a correlation of zero means knowing nothing, so that a share of the teacher's has a meaning
    return (
        by_sums("pearson", _moments, _pearson, bounded=False, limits=(-1.0, 1.0)),
        Metric("spearman", _pairs, from_list=_spearman, bounded=False, limits=(-1.0, 1.0)),
        by_sums("rmse", _squares, lambda sums: float(np.sqrt(_mean(sums))), higher=False, bounded=False),
    )


def several_numbers(outputs: Sequence[str]) -> tuple[Metric, ...]:
    """Examples of which an output is not known (NaN) do not count for it. R² = 1 - Σ (x - y)² / Σ (y - mean y)²."""
    count = len(outputs)
    return (
        by_sums("pearson", _moments_of_each, partial(_mean_of_each, of=_pearson, count=count), bounded=False,
                limits=(-1.0, 1.0)),
        Metric("spearman", _pairs_of_each, from_list=_spearman_of_each, bounded=False, limits=(-1.0, 1.0)),
        by_sums("r2", _moments_of_each, partial(_mean_of_each, of=_explained, count=count), bounded=False,
                limits=(-np.inf, 1.0)),
        *(by_sums(f"rmse_{name}", partial(_squares_of, place=place), lambda sums: float(np.sqrt(_mean(sums))), higher=False,
                  bounded=False) for place, name in enumerate(outputs)),
    )


def by_sums(
    name: str,
    statistics: Callable[[Array, Array], Array],
    from_sums: Callable[[Array], float],
    *,
    higher: bool = True,
    bounded: bool = True,
    limits: tuple[float, float] | None = None,
) -> Metric:
    return Metric(name, statistics, from_sums, higher_is_better=higher, bounded=bounded, limits=limits)


def _mean(sums: Array) -> float:
    """Of columns (value, 1)."""
    return float(sums[0] / sums[1])


def _counted(per_example: Array) -> Array:
    return np.stack([per_example, np.ones(len(per_example))], axis=1)


# --- classes ---


def _hits(logits: Array, labels: Array) -> Array:
    return _counted(logits.argmax(-1) == labels)


def _class_counts(logits: Array, labels: Array) -> Array:
    """(examples, 3 * classes): hits, predictions and occurrences of each class, as 0 and 1 of a byte: classes may be many."""
    predicted = logits.argmax(-1)
    classes, rows = logits.shape[-1], np.arange(len(labels))
    counts = np.zeros((len(labels), 3, classes), np.int8)
    counts[rows, 0, labels] = predicted == labels
    counts[rows, 1, predicted] = 1
    counts[rows, 2, labels] = 1
    return counts.reshape(len(labels), 3 * classes)


def _thirds(sums: Array) -> Array:
    return sums.reshape(3, -1)


def _over_classes(sums: Array, measure: Callable[[Array, Array, Array], Array]) -> float:
    """Mean over the classes that were predicted or occur; the others say nothing."""
    hits, predicted, occurring = _thirds(sums)
    seen = predicted + occurring > 0
    return float(measure(hits, predicted, occurring)[seen].mean())


def _f1(hits: Array, predicted: Array, occurring: Array) -> Array:
    return ratio(2 * hits, predicted + occurring)


def _precision(hits: Array, predicted: Array, occurring: Array) -> Array:
    return ratio(hits, predicted)


def _recall(hits: Array, predicted: Array, occurring: Array) -> Array:
    return ratio(hits, occurring)


def ratio(above: Array, below: Array) -> Array:
    """Zero where there is nothing to divide by."""
    none = np.zeros_like(np.asarray(above, float))
    ratio: Array = np.divide(above, below, out=none, where=np.asarray(below) > 0)
    return ratio


def _matthews(sums: Array) -> float:
    """Multiclass correlation (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006); 0 where undefined."""
    hits, predicted, occurring = _thirds(sums)
    total = predicted.sum()
    covariance = hits.sum() * total - predicted @ occurring
    spread = (total**2 - predicted @ predicted) * (total**2 - occurring @ occurring)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


# --- several labels ---


def _flag_counts(logits: Array, labels: Array) -> Array:
    """(examples, 3 * labels): hits, predictions and occurrences of each label, where it is known whether it applies."""
    known = labels != NO_ANSWER
    predicted, occurring = applies(logits) & known, (labels > 0) & known
    return np.concatenate([predicted & occurring, predicted, occurring], axis=1).astype(np.int8)


def _whole_hits(logits: Array, labels: Array) -> Array:
    return _counted(((applies(logits) == (labels > 0)) | (labels == NO_ANSWER)).all(-1))


def applies(given: Array) -> NDArray[np.bool_]:
    """(examples, labels): which labels a model says apply. Its logits are above 0, or in (examples, labels, 2) above the
    thresholds that stand behind them."""
    decided: NDArray[np.bool_] = given > 0 if given.ndim < 3 else given[..., 0] > given[..., 1]
    return decided


def _scored(logits: Array, labels: Array) -> Array:
    """(examples, 2, labels): logits, and whether the label is there; NaN where nobody knows."""
    scores = logits[..., 0] if logits.ndim == 3 else logits
    there = np.where(labels == NO_ANSWER, np.nan, labels > 0)
    return np.stack([scores.astype(np.float64), there], axis=1)


def _average_precision(scored: Array, counts: NDArray[np.int64]) -> float:
    """AP = Σ_n (R_n - R_(n-1)) P_n over the thresholds in falling order, examples of one score together."""
    found = []
    for label in range(scored.shape[2]):
        known = np.flatnonzero(~np.isnan(scored[:, 1, label]))
        order = known[np.argsort(-scored[known, 0, label], kind="stable")]
        scores, there, weights = scored[order, 0, label], scored[order, 1, label], counts[order]
        if not there.any():
            continue
        last = np.append(scores[1:] != scores[:-1], True)
        hits = np.cumsum(there * weights)[last]
        if hits[-1] > 0:
            precision = ratio(hits, np.cumsum(weights)[last])
            found.append(float(np.diff(hits, prepend=0.0) @ precision / hits[-1]))
    return float(np.mean(found)) if found else float("nan")


# --- numbers ---


def _columns(outputs: Array, labels: Array) -> tuple[Array, Array]:
    return outputs.reshape(-1).astype(np.float64), labels.reshape(-1).astype(np.float64)


def _moments(outputs: Array, labels: Array) -> Array:
    """(examples, 6): 1, x, y, xx, yy, xy, around the mean of the labels, which only rounding would see.

    Not around each model's own mean: statistics of two models can be mixed.
    """
    x, y = _columns(outputs, labels)
    x, y = x - y.mean(), y - y.mean()
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _pearson(sums: Array) -> float:
    n, x, y, xx, yy, xy = sums
    spread = (n * xx - x * x) * (n * yy - y * y)
    return float((n * xy - x * y) / np.sqrt(spread)) if spread > 0 else float("nan")


def _pairs(outputs: Array, labels: Array) -> Array:
    """(examples, 2)."""
    return np.stack(_columns(outputs, labels), axis=1)


def _spearman(pairs: Array, counts: Array) -> float:
    from scipy.stats import rankdata  # most of a second to import, for numbers alone

    x, y = np.repeat(pairs, counts, axis=0).T
    return _pearson(_moments(rankdata(x), rankdata(y)).sum(0))


def _squares(outputs: Array, labels: Array) -> Array:
    x, y = _columns(outputs, labels)
    return _counted((x - y) ** 2)


# --- several numbers ---


def _moments_of_each(outputs: Array, labels: Array) -> Array:
    """(examples, 6 * outputs), as `_moments`; zeros where the label is not known."""
    known = ~np.isnan(labels)
    x, y = outputs.astype(np.float64), labels.astype(np.float64)
    middle = np.nanmean(y, axis=0)
    x, y = np.where(known, x - middle, 0.0), np.where(known, y - middle, 0.0)
    return np.stack([known.astype(np.float64), x, y, x * x, y * y, x * y], axis=1).reshape(len(labels), -1)


def _mean_of_each(sums: Array, *, of: Callable[[Array], float], count: int) -> float:
    return float(np.mean([of(one) for one in sums.reshape(6, count).T]))


def _explained(sums: Array) -> float:
    n, _, y, xx, yy, xy = sums
    spread = yy - y * y / n if n else 0.0
    return float(1 - (xx - 2 * xy + yy) / spread) if spread > 0 else float("nan")


def _pairs_of_each(outputs: Array, labels: Array) -> Array:
    """(examples, 2, outputs)."""
    return np.stack([outputs.astype(np.float64), labels.astype(np.float64)], axis=1)


def _spearman_of_each(pairs: Array, counts: Array) -> float:
    found = []
    for place in range(pairs.shape[2]):
        known = ~np.isnan(pairs[:, 1, place])
        found.append(_spearman(pairs[known, :, place], counts[known]))
    return float(np.mean(found))


def _squares_of(outputs: Array, labels: Array, *, place: int) -> Array:
    x, y = outputs[:, place].astype(np.float64), labels[:, place].astype(np.float64)
    known = ~np.isnan(y)
    return np.stack([np.where(known, (x - y) ** 2, 0.0), known], axis=1)
