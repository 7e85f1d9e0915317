"""What models answer, as plain data, and how answers are judged: one `Answers` per model and split, whatever the task.

An answer has any shape: a row of logits, a text, a list of boxes. Metrics, decisions and intervals are made of what this
module names, and of nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from stilla.errors import StillaError

Given = NDArray[Any] | Sequence[Any]
"""Examples first: an array, or a list where the answers have no one shape."""

Statistics = NDArray[Any] | Sequence[Any]
"""What a metric needs of every example: (examples, k) numbers whose sums say it, or a list."""

NO_ANSWER = -100
"""In arrays of numbers: nothing is decided here, or nothing is known that would be right (a padded position, no label)."""


@dataclass(frozen=True, eq=False)
class Answers:
    """One model's answers to one split, examples first and in the order of the split.

    `keys`: (examples,) index of each example in the split. `given`: an answer each. `references`: what they are compared
    with, one each.

    Raises:
        StillaError: the three differ in their number of examples.
    """

    keys: Int[NDArray[np.int64], "examples"]
    given: Given
    references: Given

    def __post_init__(self) -> None:
        sizes = {"keys": len(self.keys), "answers": len(self.given), "references": len(self.references)}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise StillaError(f"answers: got {listed}; expected one of each per example")

    def __len__(self) -> int:
        return len(self.keys)

    def but(self, given: Given) -> Answers:
        """Other answers to the same examples."""
        return Answers(self.keys, given, self.references)

    def of(self, rows: NDArray[np.int64]) -> Answers:
        """Some of them."""
        given, references = (values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
                             for values in (self.given, self.references))
        return Answers(self.keys[rows], given, references)

    def check_finite(self, whose: str) -> None:
        """Raise a StillaError that names whose answers they are and the first examples that hold no finite numbers."""
        if isinstance(self.given, np.ndarray):
            bad = ~_finite(self.given)
        else:
            bad = np.array([not _is_finite(one) for one in self.given], bool)
        if bad.any():
            first = ", ".join(str(key) for key in self.keys[bad][:5])
            raise StillaError(
                f"{whose}: {bad.sum()} of {len(self)} predictions are NaN or infinite, first for examples "
                f"{first}. No score can be computed from them: train with `precision: float32` or a lower "
                "`learning_rate`, and look at these examples")


def _finite(given: NDArray[Any]) -> NDArray[np.bool_]:
    """(examples,): whether all numbers of the example are finite; what is no number always is."""
    if given.dtype.kind not in "fc":
        return np.ones(len(given), bool)
    return _all(np.isfinite(given))


def _is_finite(answer: Any) -> bool:
    """The same of one answer: an array, a number, or a list, tuple or mapping of such."""
    if isinstance(answer, np.ndarray):
        return bool(_finite(answer[None]).all())
    if isinstance(answer, Mapping):
        return all(_is_finite(one) for one in answer.values())
    if isinstance(answer, list | tuple):
        return all(_is_finite(one) for one in answer)
    return math.isfinite(answer) if isinstance(answer, float | np.floating) else True


def in_common(said: Mapping[str, Answers]) -> dict[str, Answers]:
    """Without examples that one of them did not answer: a text of a single token has nothing to predict, one of two has."""
    common = functools.reduce(np.intersect1d, [one.keys for one in said.values()])
    if all(np.isin(one.keys, common).all() for one in said.values()):
        return dict(said)
    return {name: one.of(np.flatnonzero(np.isin(one.keys, common))) for name, one in said.items()}


@dataclass(frozen=True)
class Metric:
    """A measure over examples, in two steps, so that every resample of the examples is measured on its statistics alone.

    `statistics(given, references)`: what counts of every example. Where sums say it (accuracy, F1, WER, BLEU), it is
    (examples, k) numbers and `from_sums` makes the metric of their column sums: resampling is a matrix product. Where they
    do not (a rank correlation, average precision), `from_list` gets the statistics of all examples, and (examples,) how
    often each of them counts.

    An example's statistics say nothing of what was answered to others: some may be left out (a slice), and those of two
    models exchanged (a permutation test).
    """

    name: str
    statistics: Callable[[Any, Any], Statistics]
    from_sums: Callable[[NDArray[Any]], float] | None = None
    from_list: Callable[[Any, NDArray[np.int64]], float] | None = None
    higher_is_better: bool = True
    bounded: bool = True
    """Whether it is a ratio scale in [0, 1], so that `student / teacher` means something."""
    limits: tuple[float, float] | None = None
    """Between which values it lies; by default 0 and 1 where it is bounded, else anywhere."""

    def __post_init__(self) -> None:
        if (self.from_sums is None) == (self.from_list is None):
            raise StillaError(f"the metric {self.name} has to be made of sums or of a list: give one of from_sums and "
                              "from_list")

    def compute(self, given: Given, references: Given) -> float:
        """The metric of all examples; NaN where it is not defined."""
        return self.of(self.statistics(given, references))

    def of(self, statistics: Statistics) -> float:
        """The same from the examples' statistics, each counted once."""
        if self.from_sums is not None:
            return self.from_sums(np.asarray(statistics).sum(0))
        assert self.from_list is not None
        return self.from_list(statistics, np.ones(len(statistics), np.int64))

    @property
    def range(self) -> tuple[float, float]:
        return self.limits or ((0.0, 1.0) if self.bounded else (-math.inf, math.inf))


@dataclass(frozen=True, eq=False)
class Decisions:
    """What answers decide, a unit at a time: what a person calls one decision (an example, a token, a word).

    `decided`: (units, ...) what is chosen, as numbers or strings; further axes where a unit has several parts (the labels of
    an example). `references`: (units, ...) what would have been right. In both, NO_ANSWER where there is nothing.
    `confidence`: (units, ...) the probability of what was chosen, if the model says one. `example`: (units,) the unit's
    example, as a position in the answers. `place`: (units,) which unit of its example it is, for whoever shows it.

    Two models' decisions can be compared where they are about the same units.

    Raises:
        StillaError: the arrays differ in their number of units; decisions about other units are compared.
    """

    decided: NDArray[Any]
    references: NDArray[Any]
    example: Int[NDArray[np.int64], "units"]
    place: Int[NDArray[np.int64], "units"]
    confidence: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        shapes = {"decided": self.decided.shape, "references": self.references.shape,
                  **({} if self.confidence is None else {"confidence": self.confidence.shape})}
        if len(set(shapes.values())) > 1 or not len(self.decided) == len(self.example) == len(self.place):
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise StillaError(f"decisions: got {listed} for {len(self.example)} examples and {len(self.place)} places; "
                              "expected one of each per unit")

    @classmethod
    def of_examples(
        cls, decided: NDArray[Any], references: NDArray[Any], confidence: NDArray[np.float64] | None = None
    ) -> Decisions:
        """Where an example is a unit."""
        count = len(decided)
        return cls(decided, references, np.arange(count), np.zeros(count, np.int64), confidence)

    def __len__(self) -> int:
        return len(self.example)

    def there(self) -> NDArray[np.bool_]:
        """(units, ...): where something is decided, and it is known what would be right."""
        return _answered(self.decided) & _answered(self.references)

    def right(self) -> NDArray[np.bool_]:
        """(units,): whether all of the unit is right; what nobody knows is not wrong."""
        return _all((self.decided == self.references) | ~_answered(self.references))

    def differs(self, other: Decisions) -> NDArray[np.bool_]:
        """(units,): whether any of the unit is decided otherwise."""
        self._check_same_units(other)
        return ~_all(self.decided == other.decided)

    def sure(self) -> NDArray[np.float64]:
        """(units,): probability of all the unit's decisions at once, if they are independent; 1 where none is said."""
        if self.confidence is None:
            return np.ones(len(self))
        sure: NDArray[np.float64] = _flat(np.where(_answered(self.decided), self.confidence, 1.0)).prod(axis=1)
        return sure

    def matches(self, other: Decisions, examples: int) -> NDArray[np.float64]:
        """(examples, 2): how many decisions are the other's, of how many."""
        self._check_same_units(other)
        there = _flat(_answered(other.decided))
        same = _flat(self.decided == other.decided) & there
        counted = [np.bincount(self.example, weights=one.sum(axis=1), minlength=examples) for one in (same, there)]
        return np.stack(counted, axis=1)

    def _check_same_units(self, other: Decisions) -> None:
        if not (np.array_equal(self.example, other.example) and np.array_equal(self.place, other.place)):
            raise StillaError(f"decisions: got {len(self)} units of one model and {len(other)} of another, which are not the "
                              "same; what is compared has to be decided by both (the units of the data, not of an answer)")


def _answered(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where there is something; a string is always one."""
    there: NDArray[np.bool_] = np.asarray(values != NO_ANSWER) if values.dtype.kind in "iuf" else np.ones(values.shape, bool)
    return there


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """(units, parts)."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _all(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(units,): whether all parts are true."""
    every: NDArray[np.bool_] = np.all(_flat(values), axis=1)
    return every
