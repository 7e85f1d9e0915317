"""An exam over rows of numbers, in the three kinds of labels, so that scores are tested without real tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import expit, rel_entr, softmax
from torch import Tensor, nn

from stilla.signals import Batch
from stilla.tasks.answers import Answers, Decisions, Given, Metric
from stilla.tasks.base import Prepared
from stilla.tasks.exam import ClassValues, ForwardExam, any_of
from stilla.views import Text


def _hits(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([outputs.argmax(1) == labels, np.ones(len(labels))], axis=1).astype(float)


def ratio(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1])


ACCURACY = Metric("accuracy", _hits, ratio)


def macro_f1(classes: int) -> Metric:
    def statistics(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
        chosen, there = np.eye(classes)[outputs.argmax(1)], np.eye(classes)[labels]
        return np.concatenate([chosen * there, chosen, there], axis=1)

    def from_sums(sums: NDArray[Any]) -> float:
        hits, chosen, there = sums.reshape(3, classes)
        return float(np.mean(2 * hits / np.maximum(chosen + there, 1)))

    return Metric("macro_f1", statistics, from_sums)


def _exact(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([((outputs > 0) == labels).all(1), np.ones(len(labels))], axis=1).astype(float)


EXACT = Metric("exact", _exact, ratio)


def _pairs(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([outputs, labels], axis=1)


def _pearson(found: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Of the list of pairs, as of what no sums say; not defined of a constant."""
    x, y = np.repeat(found, counts, axis=0).T
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else float("nan")


def _squares(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([(outputs - labels) ** 2, np.ones(len(labels))], axis=1)


PEARSON = Metric("pearson", _pairs, from_list=_pearson, bounded=False)
RMSE = Metric("rmse", _squares, lambda sums: float(np.sqrt(ratio(sums))), higher_is_better=False, bounded=False)


@dataclass(frozen=True)
class FakeExam(ForwardExam):
    """Answers are (classes,) or (labels,) logits, or a number. `of`: class, labels or number."""

    of: str = "class"
    names: tuple[str, ...] = ("cat", "dog", "eel")
    measured_by: tuple[Metric, ...] = ()

    def outputs(self, outputs: Any) -> Tensor:
        return outputs["logits"]

    def metrics(self) -> tuple[Metric, ...]:
        defaults = {"class": (ACCURACY, macro_f1(len(self.names))), "labels": (EXACT,), "number": (PEARSON, RMSE)}
        return self.measured_by or defaults[self.of]

    def decisions(self, answers: Answers) -> Decisions | None:
        if self.of == "number":
            return None
        sure = self._probabilities(answers)
        return Decisions.of_examples(sure.argmax(-1), np.asarray(answers.references), sure.max(-1))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        if self.of == "number":
            return None
        found: NDArray[np.float64] = rel_entr(self._probabilities(teacher), self._probabilities(answers))
        return found.reshape(len(answers), -1).sum(1)

    def by_class(self, answers: Answers) -> ClassValues | None:
        decisions = self.decisions(answers)
        if decisions is None:
            return None
        one_hot = [one if one.ndim > 1 else np.eye(len(self.names))[one] for one in (decisions.decided, decisions.references)]
        chosen, there = (one.sum(0) for one in one_hot)
        values = 2 * (one_hot[0] * one_hot[1]).sum(0) / np.maximum(chosen + there, 1)
        return ClassValues(self.names, there.astype(np.int64), values)

    def constant(self, answers: Answers) -> Given:
        labels, given = np.asarray(answers.references), np.asarray(answers.given)
        if self.of == "number":
            return np.broadcast_to(labels.mean(), given.shape)
        one = np.bincount(labels, minlength=len(self.names)) if self.of == "class" else labels.mean(0) - 0.5
        return np.broadcast_to(one, given.shape)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        return Text(str(split[int(any_of(answers).keys[example])]["text"]))

    def named(self, decision: Any) -> str:
        if self.of == "class":
            return self.names[int(decision)]
        return ", ".join(name for name, applies in zip(self.names, decision) if applies) or "none"

    def _probabilities(self, answers: Answers) -> NDArray[np.float64]:
        given = np.asarray(answers.given, np.float64)
        if self.of == "class":
            return softmax(given, axis=-1)
        return np.stack([expit(-given), expit(given)], axis=-1)


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


def prepared(
    lengths: Sequence[int], keys: Sequence[int] | None = None, references: Given | None = None
) -> Prepared:
    found = np.arange(len(lengths)) if keys is None else np.array(keys)
    return Prepared(Rows(found, lengths), collate, found, lengths, references=references)


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
) -> Answers:
    """Answers that are right where told, and choose the next class elsewhere."""
    decided = np.where(right, labels, (labels + 1) % classes)
    return Answers(np.arange(len(labels)), margin * np.eye(classes)[decided], labels)
