"""A task over rows of numbers, in the three kinds of labels, so that scores are tested without real tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor, nn

from stilla.evaluate import Predictions
from stilla.recipe import Data, ModelSource
from stilla.signals import Batch, Signals
from stilla.tasks.base import Loaded, Metric, Prepared, Side, Task


def _hits(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([outputs.argmax(1) == labels, np.ones(len(labels))], axis=1).astype(float)


def _ratio(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1])


ACCURACY = Metric("accuracy", lambda outputs, labels: float((outputs.argmax(1) == labels).mean()),
                  statistics=_hits, from_sums=_ratio)


def macro_f1(classes: int) -> Metric:
    def statistics(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
        chosen, there = np.eye(classes)[outputs.argmax(1)], np.eye(classes)[labels]
        return np.concatenate([chosen * there, chosen, there], axis=1)

    def from_sums(sums: NDArray[Any]) -> float:
        hits, chosen, there = sums.reshape(3, classes)
        return float(np.mean(2 * hits / np.maximum(chosen + there, 1)))

    return Metric("macro_f1", lambda outputs, labels: from_sums(statistics(outputs, labels).sum(0)),
                  statistics=statistics, from_sums=from_sums)


EXACT = Metric("exact", lambda outputs, labels: float(((outputs > 0) == labels).all(1).mean()))


def _pearson(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(outputs, labels)[0, 1])


PEARSON = Metric("pearson", _pearson, bounded=False)
RMSE = Metric("rmse", lambda outputs, labels: float(np.sqrt(((outputs - labels) ** 2).mean())),
              higher_is_better=False, bounded=False)


class FakeTask(Task):
    """`kind_of_label`: class, labels or number."""

    kind = "fake"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"values": ("batch", "length")}

    def __init__(self, kind_of_label: str = "class", names: Sequence[str] = ("cat", "dog", "eel"),
                 metrics: tuple[Metric, ...] | None = None) -> None:
        self.of = kind_of_label
        self.names = tuple(names)
        defaults = {"class": (ACCURACY, macro_f1(len(names))), "labels": (EXACT,), "number": (PEARSON, RMSE)}
        self._metrics = metrics or defaults[kind_of_label]

    def outputs(self, outputs: Any) -> Tensor:
        return outputs["logits"]

    def metrics(self) -> tuple[Metric, ...]:
        return self._metrics

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[Any] | None:
        if self.of == "class":
            return softmax(outputs, axis=-1)
        return np.stack([expit(-outputs), expit(outputs)], axis=-1) if self.of == "labels" else None

    def class_names(self) -> tuple[str, ...]:
        return () if self.of == "number" else self.names

    def show(self, split: Dataset, key: int) -> str:
        return str(split[key]["text"])

    def references(self, split: Dataset, keys: NDArray[np.int64]) -> NDArray[Any]:
        return np.array(split["label"])[keys]

    def row_classes(self) -> int:
        return len(self.names)

    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        return None

    def counts(self, batch: Batch) -> Mapping[str, int]:
        raise NotImplementedError

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        raise NotImplementedError

    @classmethod
    def understand(cls, section: Data, splits: Mapping[str, Dataset]) -> Self:
        raise NotImplementedError

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise NotImplementedError

    def resolved(self, section: Data) -> Data:
        return section

    def adapted_to(self, teacher: Loaded) -> Self:
        raise NotImplementedError

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        raise NotImplementedError

    def prepare(self, split: Dataset, student: Any, teacher: Any | None, *, training: bool) -> Prepared:
        raise NotImplementedError


class Rows(torch.utils.data.Dataset[tuple[int, Tensor]]):
    """(key, values): example `i` has `lengths[i]` values."""

    def __init__(self, keys: NDArray[np.int64], lengths: Sequence[int]) -> None:
        self.keys, self.lengths = keys, lengths

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        key = int(self.keys[index])
        return key, torch.full((self.lengths[index],), float(key))


def collate(examples: Sequence[tuple[int, Tensor]]) -> Batch:
    """Padded with zeros; the teacher sees twice the values; the label is the key modulo 3."""
    keys = torch.tensor([key for key, _ in examples])
    values = nn.utils.rnn.pad_sequence([value for _, value in examples], batch_first=True)
    return Batch(student={"values": values}, teacher={"values": 2 * values}, labels=keys % 3, keys=keys)


def prepared(lengths: Sequence[int], keys: Sequence[int] | None = None) -> Prepared:
    found = np.arange(len(lengths)) if keys is None else np.array(keys)
    return Prepared(Rows(found, lengths), collate, found, lengths)


class Echo(nn.Module):
    """Logits (largest value, its negative, batch's width): says which example it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)
        self.widths: list[int] = []

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        self.widths.append(values.shape[1])
        top = self.dropout(self.scale * values.amax(dim=1))
        return {"logits": torch.stack([top, -top, torch.zeros_like(top)], dim=1)}


def classified(
    right: NDArray[np.bool_], labels: NDArray[np.int64], classes: int = 3, margin: float = 2.0,
) -> Predictions:
    """Predictions that are right where told, and choose the next class elsewhere."""
    decided = np.where(right, labels, (labels + 1) % classes)
    return Predictions(np.arange(len(labels)), margin * np.eye(classes)[decided], labels)
