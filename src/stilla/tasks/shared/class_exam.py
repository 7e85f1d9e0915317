"""What classifiers are asked, and how it is judged: one class, several labels, or a number per example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax
from torch import Tensor

from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.exam import ClassValues, ForwardExam, any_of
from stilla.tasks.shared import metrics
from stilla.tasks.shared.labels import Problem
from stilla.views import View

_CHUNK = 2**22
"""Numbers whose distributions are held at a time, in float64: 32 MB and a few copies."""


@dataclass(frozen=True)
class ClassExam(ForwardExam):
    """Answers are logits: (classes,), (labels,), or a number (1,), which may be a logit's sigmoid.

    `shown`: an example of a split for a person.
    """

    problem: Problem
    shown: Callable[[Dataset, int], View]

    def outputs(self, outputs: Any) -> Tensor:
        if isinstance(outputs, Tensor):
            return outputs  # an exported file's: made by this function when it was written
        logits: Tensor = outputs["logits"]
        return logits.float().sigmoid() if self.problem.activation == "sigmoid" else logits

    def metrics(self) -> tuple[Metric, ...]:
        kinds = {"single_label": metrics.single_label, "multi_label": metrics.multi_label}
        return kinds.get(self.problem.kind, metrics.regression)()

    def decisions(self, answers: Answers) -> Decisions | None:
        """An example is one decision, or one of several labels: each label applies or does not."""
        if self.problem.kind == "regression":
            return None
        parts = [(logs.argmax(-1), np.exp(logs.max(-1))) for logs in self._logs(answers)]
        decided, confidence = (np.concatenate(one) for one in zip(*parts))
        return Decisions.of_examples(decided, np.asarray(answers.references), confidence)

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Per example; the sum over several labels."""
        if self.problem.kind == "regression":
            return None
        return np.concatenate([kl_divergence(theirs, ours)
                               for theirs, ours in zip(self._logs(teacher), self._logs(answers))])

    def by_class(self, answers: Answers) -> ClassValues | None:
        decisions = self.decisions(answers)
        if decisions is None or not self.problem.names:
            return None
        labels = np.asarray(answers.references)
        return f1_by_class(self.problem.names, decisions.decided, labels)

    def constant(self, answers: Answers) -> NDArray[np.float64]:
        """Always the most frequent class (of several labels each label's), or the mean."""
        labels, given = np.asarray(answers.references), np.asarray(answers.given)
        names = self.problem.names
        one = prior_logits(labels, len(names)) if names else labels.mean()
        return np.broadcast_to(one, given.shape)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        return self.shown(split, int(any_of(answers).keys[example]))

    def named(self, decision: Any) -> str:
        """The class's name; of several labels those that apply, or 'none'."""
        names = self.problem.names
        if not isinstance(decision, np.ndarray):
            return names[int(decision)]
        return ", ".join(names[index] for index, applies in enumerate(decision) if applies) or "none"

    def _logs(self, answers: Answers) -> Iterator[NDArray[np.float64]]:
        """Log-probabilities (examples, ..., classes) in float64, some examples at a time; of several labels (examples,
        labels, 2)."""
        given = np.asarray(answers.given)
        rows = max(1, _CHUNK // max(1, given[0].size if len(given) else 1))
        for start in range(0, max(1, len(given)), rows):
            part = given[start : start + rows].astype(np.float64)
            if self.problem.kind == "multi_label":
                yield np.stack([log_expit(-part), log_expit(part)], axis=-1)
            else:
                yield log_softmax(part, axis=-1)


def kl_divergence(
    teacher: Float[npt.NDArray[np.float64], "examples ... classes"],
    subject: Float[npt.NDArray[np.float64], "examples ... classes"],
) -> Float[npt.NDArray[np.float64], "examples"]:
    """KL(teacher || subject) = Σ p (log p - log q) in nats per example, of log-probabilities; the sum over several labels.

    Where the teacher's probability is 0, so is the term.
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(teacher) * (teacher - subject)
    terms = np.where(np.isneginf(teacher), 0.0, terms)
    # rounding may leave -1e-17 where both are equal
    per_example: NDArray[np.float64] = terms.sum(axis=-1).reshape(len(terms), -1).sum(axis=1)
    return per_example.clip(min=0.0)


def f1_by_class(names: tuple[str, ...], decided: NDArray[Any], labels: NDArray[Any]) -> ClassValues:
    """F1 = 2 tp / (2 tp + fp + fn) of each class against the rest; 0 if neither there nor predicted."""
    chosen, there = _one_hot(decided, len(names)), _one_hot(labels, len(names))
    hits = (chosen & there).sum(axis=0)
    total = chosen.sum(axis=0) + there.sum(axis=0)
    return ClassValues(names, there.sum(axis=0), 2.0 * hits / np.maximum(total, 1))


def prior_logits(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """(classes,): log frequency of each class; of several labels each label's log odds."""
    if labels.ndim == 1:
        counts = np.bincount(labels.astype(np.int64), minlength=classes)
        logits: NDArray[np.float64] = np.log(np.maximum(counts, 1e-9) / len(labels))
        return logits
    frequency = np.clip(labels.mean(axis=0), 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(frequency) - np.log1p(-frequency)
    return odds


def _one_hot(decided: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(examples, classes); several labels are that already."""
    return decided.astype(bool) if decided.ndim > 1 else decided[:, None] == np.arange(classes)
