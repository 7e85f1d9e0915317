"""Every metric equals scikit-learn's or SciPy's, and its sums equal its value, also on resamples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from stilla.tasks.answers import Metric
from stilla.tasks.shared import metrics

Array = NDArray[Any]
ZERO: dict[str, Any] = {"zero_division": 0}


def single(classes: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(classes)
    logits = generator.normal(size=(60, classes))
    logits[:, -1] -= 9  # never predicted
    labels = generator.integers(0, max(2, classes - 2), size=60)  # some never occur
    logits[np.arange(60), labels] += 1
    return logits, labels


def several() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(50, 4))
    labels = (logits + generator.normal(size=(50, 4)) > 0.5).astype(np.int64)
    labels[:, 3], logits[:, 3] = 0, -1
    return logits, labels


def numbers() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    labels = generator.normal(1e4, 1, size=80).astype(np.float32).round(1)  # ties, and far from zero
    return (labels + generator.normal(size=80))[:, None].astype(np.float32), labels


SINGLE: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": sk.accuracy_score,
    "macro_f1": lambda y, p: sk.f1_score(y, p, average="macro", **ZERO),
    "macro_precision": lambda y, p: sk.precision_score(y, p, average="macro", **ZERO),
    "macro_recall": lambda y, p: sk.recall_score(y, p, average="macro", **ZERO),
    "matthews": sk.matthews_corrcoef,
}
SEVERAL: dict[str, Callable[[Array, Array], float]] = {
    "micro_f1": lambda y, p: sk.f1_score(y, p, average="micro", **ZERO),
    "macro_f1": lambda y, p: sk.f1_score(y, p, average="macro", **ZERO),
    "micro_precision": lambda y, p: sk.precision_score(y, p, average="micro", **ZERO),
    "micro_recall": lambda y, p: sk.recall_score(y, p, average="micro", **ZERO),
    "subset_accuracy": sk.accuracy_score,
}
NUMBERS: dict[str, Callable[[Array, Array], float]] = {
    "pearson": lambda y, p: stats.pearsonr(y, p).statistic,
    "spearman": lambda y, p: stats.spearmanr(y, p).statistic,
    "rmse": lambda y, p: sk.root_mean_squared_error(y, p),
}


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("metric", metrics.single_label(), ids=lambda one: one.name)
def test_metrics_of_classes_are_scikit_learns(metric: Metric, classes: int) -> None:
    logits, labels = single(classes)
    assert metric.compute(logits, labels) == pytest.approx(SINGLE[metric.name](labels, logits.argmax(-1)), abs=1e-12)


@pytest.mark.parametrize("metric", metrics.multi_label(), ids=lambda one: one.name)
def test_metrics_of_several_labels_are_scikit_learns(metric: Metric) -> None:
    logits, labels = several()
    assert metric.compute(logits, labels) == pytest.approx(SEVERAL[metric.name](labels, logits > 0), abs=1e-12)


@pytest.mark.parametrize("metric", metrics.regression(), ids=lambda one: one.name)
def test_metrics_of_numbers_are_scipys(metric: Metric) -> None:
    outputs, labels = numbers()
    expected = NUMBERS[metric.name](labels.astype(np.float64), outputs[:, 0].astype(np.float64))
    assert metric.compute(outputs, labels) == pytest.approx(expected, abs=1e-9)


def test_the_headlines_come_first() -> None:
    names = [kind()[0].name for kind in (metrics.single_label, metrics.multi_label, metrics.regression)]
    assert names == ["accuracy", "micro_f1", "pearson"]
    assert [one.name for one in metrics.regression() if not one.higher_is_better] == ["rmse"]


ALL = [
    *((metric, *single(7)) for metric in metrics.single_label()),
    *((metric, *several()) for metric in metrics.multi_label()),
    *((metric, *numbers()) for metric in metrics.regression()),
]


@pytest.mark.parametrize(("metric", "outputs", "labels"), ALL, ids=lambda one: getattr(one, "name", ""))
def test_statistics_of_a_resample_give_its_metric(metric: Metric, outputs: Array, labels: Array) -> None:
    drawn = np.random.default_rng(1).integers(0, len(labels), size=len(labels))
    counts = np.bincount(drawn, minlength=len(labels))
    statistics = metric.statistics(outputs, labels)
    assert (metric.from_sums is None) == (metric.name == "spearman")
    found = metric.from_list(statistics, counts) if metric.from_sums is None else metric.from_sums(counts @ statistics)
    assert found == pytest.approx(metric.compute(outputs[drawn], labels[drawn]), abs=1e-9)


def test_measures_that_are_not_defined_say_so() -> None:
    constant = np.zeros((4, 1)), np.arange(4.0)
    assert np.isnan(metrics.regression()[0].compute(*constant))
    one_class = np.array([[1.0, 0.0]] * 3), np.zeros(3, np.int64)
    assert {one.name: one.compute(*one_class) for one in metrics.single_label()} == {
        "accuracy": 1,
        "macro_f1": 1,
        "macro_precision": 1,
        "macro_recall": 1,
        "matthews": 0,
    }


MANY = np.zeros((3, 5000), np.float32)


@pytest.mark.parametrize(("metric", "labels"), [
    *((metric, np.array([0, 4999, 7])) for metric in metrics.single_label()[1:]),
    *((metric, MANY.astype(np.int64)) for metric in metrics.multi_label()[:-1]),
])
def test_thousands_of_classes_take_a_byte_each(metric: Metric, labels: Array) -> None:
    assert np.asarray(metric.statistics(MANY, labels)).nbytes == 3 * 3 * 5000


def test_the_label_among_the_likeliest_is_scikit_learns() -> None:
    logits, labels = single(9)
    for most in (1, 3, 5):
        expected = sk.top_k_accuracy_score(labels, logits, k=most, labels=np.arange(9))
        metric = metrics.among(most)
        assert metric.name == f"top_{most}_accuracy"
        assert metric.compute(logits, labels) == pytest.approx(expected, abs=1e-12)
