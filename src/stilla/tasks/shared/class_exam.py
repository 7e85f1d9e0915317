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

from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Metric
from stilla.tasks.exam import ClassValues, ForwardExam, any_of
from stilla.tasks.shared import metrics
from stilla.tasks.shared.labels import Problem
from stilla.views import View

_CHUNK = 2**22
"""Numbers whose distributions are held at a time, in float64: 32 MB and a few copies."""


@dataclass(frozen=True)
class ClassExam(ForwardExam):
    """Answers are logits: (classes,), (labels,), or numbers (outputs,), a single one of which may be a logit's sigmoid.

    `shown`: an example of a split for a person.
    """

    problem: Problem
    shown: Callable[[Dataset, int], View]
    tuned: bool = False
    """Whether from which probability on a label applies is chosen on validation data; else it is a half."""

    def outputs(self, outputs: Any) -> Tensor:
        if isinstance(outputs, Tensor):
            return outputs  # an exported file's: made by this function when it was written
        logits: Tensor = outputs["logits"]
        return logits.float().sigmoid() if self.problem.activation == "sigmoid" else logits

    def metrics(self) -> tuple[Metric, ...]:
        if self.problem.kind == "regression":
            return metrics.regression(self.problem.names)
        return metrics.single_label() if self.problem.kind == "single_label" else metrics.multi_label()

    def decisions(self, answers: Answers) -> Decisions | None:
        """An example is one decision, or one of several labels: each label applies or does not."""
        if self.problem.kind == "regression":
            return None
        decided, confidence = [], []
        for given, logs in self._logs(answers):
            chosen = metrics.applies(given).astype(np.int64) if self.problem.kind == "multi_label" else logs.argmax(-1)
            decided.append(chosen)
            confidence.append(np.exp(np.take_along_axis(logs, chosen[..., None], -1)[..., 0]))
        return Decisions.of_examples(np.concatenate(decided), np.asarray(answers.references), np.concatenate(confidence))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Per example; the sum over several labels."""
        if self.problem.kind == "regression":
            return None
        return np.concatenate([kl_divergence(theirs, ours)
                               for (_, theirs), (_, ours) in zip(self._logs(teacher), self._logs(answers))])

    def settled(self, answers: Answers, validation: Answers) -> Answers:
        """With the logits behind it from which on each label applies, (examples, labels, 2), where they are chosen."""
        if not self.tuned:
            return answers
        given = np.asarray(answers.given)
        return answers.but(np.stack([given, np.broadcast_to(self.thresholds(validation), given.shape)], axis=-1))

    def thresholds(self, validation: Answers) -> NDArray[np.float64]:
        """(labels,): the logits above which labels apply, so that each one's F1 on these answers is highest."""
        return best_thresholds(np.asarray(validation.given, np.float64), np.asarray(validation.references))

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
        one = np.nanmean(labels, 0) if self.problem.kind == "regression" else prior_logits(labels, len(names))
        return np.broadcast_to(one, given.shape[:2])

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        return self.shown(split, int(any_of(answers).keys[example]))

    def named(self, decision: Any) -> str:
        """The class's name; of several labels those that apply, or 'none'."""
        names = self.problem.names
        if not isinstance(decision, np.ndarray):
            return names[int(decision)]
        return ", ".join(names[index] for index, applies in enumerate(decision) if applies) or "none"

    def _logs(self, answers: Answers) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
        """Some examples at a time, what was answered and its log-probabilities (examples, ..., classes) in float64; of
        several labels (examples, labels, 2)."""
        given = np.asarray(answers.given)
        rows = max(1, _CHUNK // max(1, given[0].size if len(given) else 1))
        for start in range(0, max(1, len(given)), rows):
            part = given[start : start + rows].astype(np.float64)
            if self.problem.kind == "multi_label":
                logits = part if part.ndim < 3 else part[..., 0]
                yield part, np.stack([log_expit(-logits), log_expit(logits)], axis=-1)
            else:
                yield part, log_softmax(part, axis=-1)


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
    """F1 = 2 tp / (2 tp + fp + fn) of each class against the rest, where it is known what is right; 0 if neither there nor
    predicted."""
    chosen, there = _one_hot(np.where(labels == NO_ANSWER, NO_ANSWER, decided), len(names)), _one_hot(labels, len(names))
    hits = (chosen & there).sum(axis=0)
    total = chosen.sum(axis=0) + there.sum(axis=0)
    return ClassValues(names, there.sum(axis=0), 2.0 * hits / np.maximum(total, 1))


def best_thresholds(
    logits: Float[npt.NDArray[np.float64], "examples labels"], labels: NDArray[Any]
) -> Float[npt.NDArray[np.float64], "labels"]:
    """Of each label the logit above which it applies, so that its F1 is highest where it is known whether it does: halfway
    between two answers, of equally good ones the nearest to 0, a probability of a half. 0 where no example has the label.
    """
    found = np.zeros(logits.shape[1])
    for place in range(logits.shape[1]):
        known = labels[:, place] != NO_ANSWER
        given, there = logits[known, place], labels[known, place] > 0
        if not there.any():
            continue
        order = np.argsort(-given, kind="stable")
        given, there = given[order], there[order]
        # after each answer that the next one differs from, a line may be drawn; after the last, below all
        ends = np.flatnonzero(np.append(np.diff(given) != 0, True))
        hits, chosen = np.cumsum(there)[ends], ends + 1
        worth = 2 * hits / (chosen + there.sum())
        below = np.append(given[1:], given[-1] - 2)[ends]
        lines = np.where((given[ends] > 0) & (below <= 0), 0.0, (given[ends] + below) / 2)
        best = np.flatnonzero(worth == worth.max())
        found[place] = lines[best[np.abs(lines[best]).argmin()]]
    return found


def prior_logits(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """(classes,): log frequency of each class; of several labels each label's log odds."""
    if labels.ndim == 1:
        counts = np.bincount(labels.astype(np.int64), minlength=classes)
        logits: NDArray[np.float64] = np.log(np.maximum(counts, 1e-9) / len(labels))
        return logits
    known = labels != NO_ANSWER
    frequency = np.clip((known & (labels > 0)).sum(axis=0) / np.maximum(known.sum(axis=0), 1), 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(frequency) - np.log1p(-frequency)
    return odds


def _one_hot(decided: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(examples, classes); several labels are that already."""
    return decided > 0 if decided.ndim > 1 else decided[:, None] == np.arange(classes)
