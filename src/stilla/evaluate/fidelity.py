"""How faithful a subject is to its teacher: agreement, and the decisions that flipped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from jaxtyping import Int
from numpy.typing import NDArray

from stilla.scores import Flip
from stilla.tasks.answers import Answers, Decisions, Given, Metric
from stilla.tasks.exam import Exam, any_of

KINDS = ("lost", "won", "moved")
"""Ways for a decision to flip: see `scores.Flip`."""

SHOWN = 60
"""Flipped decisions kept for the report; all are counted."""


def _matches(decided: Given, teacher: Given) -> NDArray[np.float64]:
    """(examples, 2): how many decisions match, of how many, where an example is a unit."""
    ours, theirs = (Decisions.of_examples(np.asarray(one), np.asarray(teacher)) for one in (decided, teacher))
    return ours.matches(theirs, len(theirs))


AGREEMENT = Metric("agreement", _matches, from_sums=lambda sums: float(sums[0] / sums[1]) if sums[1] else float("nan"))
"""Fraction of decisions that are the teacher's; each of several labels is one. Of (decided, teacher's)."""


def flip_kinds(teacher: Decisions, student: Decisions) -> dict[str, Int[npt.NDArray[np.int64], "flipped"]]:
    """The units on which the two decide differently, by kind, the student's surest first."""
    differ = student.differs(teacher)
    was, now = teacher.right(), student.right()
    kinds = {"lost": differ & was & ~now, "won": differ & ~was & now, "moved": differ & ~was & ~now}
    order = np.argsort(-student.sure(), kind="stable")
    return {kind: order[kinds[kind][order]] for kind in KINDS}


def flips(
    kinds: Mapping[str, NDArray[np.int64]],
    subjects: Mapping[str, Decisions],
    answers: Mapping[str, Answers],
    exam: Exam,
    split: Dataset,
    most: int = SHOWN,
) -> tuple[Flip, ...]:
    """The surest flips of each kind, at most `most` in all, kinds balanced; the student's surest first. Where examples have
    several, each of them comes with its surest before any comes with another, as of pixels all would be of one picture.

    answers: of teacher and student, which the exam may show; they say which examples the units are of.
    """
    examples = subjects["student"].example
    spread = {kind: units[np.argsort(_turns(examples[units]), kind="stable")] for kind, units in kinds.items()}
    taken = {kind: kinds[kind][np.isin(kinds[kind], units)] for kind, units in _balanced(spread, most).items()}
    chosen = [(kind, unit) for kind, units in taken.items() for unit in units.tolist()]
    sure = {name: decisions.sure() for name, decisions in subjects.items() if decisions.confidence is not None}
    student = subjects["student"]
    order = student.sure()
    chosen.sort(key=lambda one: -order[one[1]])
    return tuple(Flip(
        key=_key(any_of(answers), student, unit),
        shown=exam.view(split, answers, int(student.example[unit]), int(student.place[unit])),
        label=exam.named(student.references[unit]),
        predictions={name: exam.named(one.decided[unit]) for name, one in subjects.items()},
        confidences={name: float(confidence[unit]) for name, confidence in sure.items()},
        kind=kind,
    ) for kind, unit in chosen)


def _turns(examples: NDArray[np.int64]) -> NDArray[np.int64]:
    """(units,) how many units of the same example stand before each."""
    order = np.argsort(examples, kind="stable")
    first = np.flatnonzero(np.diff(examples[order], prepend=-1))
    turns = np.empty(len(examples), np.int64)
    turns[order] = np.arange(len(examples)) - np.repeat(first, np.diff(first, append=len(examples)))
    return turns


def _key(answers: Answers, decisions: Decisions, unit: int) -> str:
    """The example's place in the split, and the unit's in it where it has several."""
    key, place = answers.keys[decisions.example[unit]], decisions.place[unit]
    alone = np.array_equal(decisions.example, np.arange(len(answers)))
    return str(key) if alone else f"{key}.{place}"


def _balanced(kinds: Mapping[str, NDArray[np.int64]], most: int) -> dict[str, NDArray[np.int64]]:
    """The same number of each kind; places that a rare kind leaves empty go to the others."""
    places, taken = most, {}
    by_rarity = sorted(kinds, key=lambda kind: len(kinds[kind]))
    for left, kind in zip(range(len(kinds), 0, -1), by_rarity):
        taken[kind] = kinds[kind][:places // left]
        places -= len(taken[kind])
    return taken
