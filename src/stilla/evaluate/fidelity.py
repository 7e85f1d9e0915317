"""How faithful a subject is to its teacher: agreement, KL divergence, flipped examples, changed classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stilla.evaluate.predict import Predictions
from stilla.scores import ClassScore, Flip
from stilla.tasks.base import Metric, Task
from stilla.tasks.language.vocabulary import CONFIDENCE, TOP
from stilla.tasks.text.sequences import NO_ROW

KINDS = ("lost", "won", "moved")
"""Ways for an example to flip: see `scores.Flip`."""

SHOWN = 60
"""Flipped examples kept for the report; all are counted."""


@runtime_checkable
class Names(Protocol):
    """Names of classes by number: a list, or what makes them when they are asked for."""

    def __getitem__(self, number: int, /) -> str: ...


@dataclass(frozen=True, eq=False)
class Decisions:
    """What predictions decide, and how sure they are of it.

    `decided`: (examples, ...) class of each decision, -100 where there is none (a padded position). `confidence`:
    (examples, ...) its probability.
    """

    decided: Int[npt.NDArray[np.int64], "examples ..."]
    confidence: Float[npt.NDArray[np.float64], "examples ..."]

    def right(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """(examples,): whether all decisions of the example are right."""
        right: NDArray[np.bool_] = (self.decided == labels).reshape(len(labels), -1).all(axis=1)
        return right

    def sure(self) -> NDArray[np.float64]:
        """(examples,): probability of all the example's decisions at once, if they are independent."""
        sure: NDArray[np.float64] = self.confidence.reshape(len(self.confidence), -1).prod(axis=1)
        return sure


def distributions(task: Task, predictions: Predictions) -> NDArray[np.float64] | None:
    """(examples, ..., classes) in float64, in which probabilities down to 1e-300 keep all their digits."""
    found = task.probabilities(predictions.outputs.astype(np.float64))
    return None if found is None else np.asarray(found, dtype=np.float64)


def decide_tokens(outputs: NDArray[Any], labels: NDArray[Any]) -> Decisions:
    """Of a vocabulary, from the columns that are kept of every row: the likeliest token at each position with a label."""
    there = labels != NO_ROW
    sure = np.exp(outputs[..., CONFIDENCE].astype(np.float64))
    return Decisions(np.where(there, outputs[..., TOP].astype(np.int64), NO_ROW), np.where(there, sure, 1.0))


def decide(probabilities: Float[npt.NDArray[np.float64], "examples ... classes"]) -> Decisions:
    return Decisions(probabilities.argmax(axis=-1), probabilities.max(axis=-1))


def _matches(decided: NDArray[Any], teacher: NDArray[Any]) -> NDArray[np.float64]:
    """(examples, 2): how many decisions match, of how many."""
    there = (teacher != NO_ROW).reshape(len(decided), -1)
    match = (decided == teacher).reshape(len(decided), -1) & there
    return np.stack([match.sum(axis=1), there.sum(axis=1)], axis=1).astype(np.float64)


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1])


AGREEMENT = Metric("agreement", compute=lambda decided, teacher: _mean(_matches(decided, teacher).sum(0)),
                   statistics=_matches, from_sums=_mean)
"""Fraction of decisions that are the teacher's; each of several labels is one. Of (decided, teacher's)."""


def kl_divergence(
    teacher: Float[npt.NDArray[np.float64], "examples ... classes"],
    subject: Float[npt.NDArray[np.float64], "examples ... classes"],
) -> Float[npt.NDArray[np.float64], "examples"]:
    """KL(teacher || subject) = Σ p (log p - log q) in nats per example; the sum over several labels.

    The logarithms are taken apart, so that no ratio overflows; where the teacher's probability is 0, so is
    the term. A subject's probability below the smallest float64 counts as that (708 nats).
    """
    tiny = np.finfo(np.float64).tiny
    terms = teacher * (np.log(np.maximum(teacher, tiny)) - np.log(np.maximum(subject, tiny)))
    # rounding may leave -1e-17 where both are equal
    per_example: NDArray[np.float64] = terms.sum(axis=-1).reshape(len(terms), -1).sum(axis=1)
    return per_example.clip(min=0.0)


def class_f1(
    decided: NDArray[np.int64], labels: NDArray[Any], classes: int,
) -> Float[npt.NDArray[np.float64], "classes"]:
    """F1 = 2 tp / (2 tp + fp + fn) of each class against the rest; 0 if neither there nor predicted."""
    chosen, there = _one_hot(decided, classes), _one_hot(labels, classes)
    hits = (chosen & there).sum(axis=0)
    total = chosen.sum(axis=0) + there.sum(axis=0)
    f1: NDArray[np.float64] = 2.0 * hits / np.maximum(total, 1)
    return f1


def class_scores(
    names: Sequence[str], labels: NDArray[Any], decided: Mapping[str, Sequence[NDArray[np.int64]]],
) -> tuple[ClassScore, ...]:
    """Support, and F1 by subject: the mean over the subject's seeds."""
    f1 = {subject: np.mean([class_f1(one, labels, len(names)) for one in seeds], axis=0)
          for subject, seeds in decided.items()}
    support = _one_hot(labels, len(names)).sum(axis=0)
    return tuple(ClassScore(name, int(number), {subject: float(one[index]) for subject, one in f1.items()})
                 for index, (name, number) in enumerate(zip(names, support)))


def flip_kinds(
    teacher: Decisions, student: Decisions, labels: NDArray[Any],
) -> dict[str, Int[npt.NDArray[np.int64], "flipped"]]:
    """Positions of the examples on which the two decide differently, by kind, the student's surest first."""
    differ = (teacher.decided != student.decided).reshape(len(labels), -1).any(axis=1)
    was, now = teacher.right(labels), student.right(labels)
    kinds = {"lost": differ & was & ~now, "won": differ & ~was & now, "moved": differ & ~was & ~now}
    order = np.argsort(-student.sure(), kind="stable")
    return {kind: order[kinds[kind][order]] for kind in KINDS}


def flips(
    kinds: Mapping[str, NDArray[np.int64]],
    subjects: Mapping[str, Decisions],
    keys: NDArray[np.int64],
    labels: NDArray[Any],
    names: Names,
    show: Callable[[int], str],
    most: int = SHOWN,
) -> tuple[Flip, ...]:
    """The surest flips of each kind, at most `most` in all, kinds balanced; the student's surest first."""
    balanced = _balanced(kinds, most)
    chosen = [(kind, position) for kind, positions in balanced.items() for position in positions]
    sure = {name: decisions.sure() for name, decisions in subjects.items()}
    chosen.sort(key=lambda one: -sure["student"][one[1]])
    return tuple(Flip(
        key=str(keys[position]),
        shown=show(int(keys[position])),
        label=_named(labels[position], names),
        predictions={name: _named(one.decided[position], names) for name, one in subjects.items()},
        confidences={name: float(confidence[position]) for name, confidence in sure.items()},
        kind=kind,
    ) for kind, position in chosen)


def _balanced(kinds: Mapping[str, NDArray[np.int64]], most: int) -> dict[str, NDArray[np.int64]]:
    """The same number of each kind; places that a rare kind leaves empty go to the others."""
    places, taken = most, {}
    by_rarity = sorted(kinds, key=lambda kind: len(kinds[kind]))
    for left, kind in zip(range(len(kinds), 0, -1), by_rarity):
        taken[kind] = kinds[kind][:places // left]
        places -= len(taken[kind])
    return taken


def _named(decision: NDArray[Any] | np.integer[Any], names: Names) -> str:
    """The class's name; of several labels those that apply, or 'none'."""
    if not isinstance(decision, np.ndarray):
        return names[int(decision)]
    return ", ".join(names[index] for index, applies in enumerate(decision) if applies) or "none"


def _one_hot(decided: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(examples, classes); several labels are that already."""
    return decided.astype(bool) if decided.ndim > 1 else decided[:, None] == np.arange(classes)
