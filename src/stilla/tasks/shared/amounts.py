"""Numbers to predict, one of an example or several: what columns of them may hold, and the units in which they are learnt."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from stilla.errors import DataError, all_of, did_you_mean, one_of, quoted
from stilla.tasks.shared.columns import values
from stilla.tasks.shared.label_checks import is_null, rows_in_words
from stilla.tasks.shared.label_values import Notation, number_or_none, read
from stilla.tasks.shared.problem import Problem, Scale
from stilla.tasks.shared.sections import Classified, Labelled

logger = logging.getLogger(__name__)

_LARGEST = float(np.finfo(np.float32).max)
_DIGITS = 6


def one_number(column: str, splits: Mapping[str, Dataset], where: str, notation: Notation) -> Problem:
    """A column of numbers, each of which is known.

    Raises:
        DataError: some are not finite; in the split `where`, of training, all are the same.
    """
    for name, split in splits.items():
        _refuse_strange(column, name, split, read(split, column, notation))
    if where == "train" and len(set(read(splits[where], column, notation))) < 2:
        raise DataError(f"data.label: {column!r} is the same number in every training example.")
    return Problem("number", (column,), notation=notation)


def are_numbers(section: Labelled, columns: Sequence[str], splits: Mapping[str, Dataset]) -> bool:
    """Whether several label columns hold numbers to predict, and not flags of labels: where the recipe says so, or all hold
    numbers and some a fraction."""
    if section.kind is not None:
        return section.kind == "regression"
    if any(isinstance(split.features[column], ClassLabel) for column in columns for split in splits.values()):
        return False
    try:
        numbers = [number for column in columns for split in splits.values() for number in _numbers(split, column)]
    except ValueError:
        return False
    found = next((one for one in numbers if not math.isnan(one) and one % 1 != 0), None)
    if found is not None:
        logger.info("data.label: %s hold fractions (%g): read as numbers to predict (data.kind: regression)",
                    all_of([repr(column) for column in columns]), found)
    return found is not None


def several_numbers(section: Labelled, columns: tuple[str, ...], splits: Mapping[str, Dataset]) -> Problem:
    """Columns of numbers; an empty place says that nobody knows it.

    Raises:
        DataError: what is no number, not finite, known of no example, or the same in all of training.
    """
    for column in columns:
        for name, split in splits.items():
            rows = values(split, column)
            wrong = [row for row, value in enumerate(rows) if not _is_number(value)]
            if wrong or isinstance(split.features[column], ClassLabel):
                raise DataError(f"data.{name}: {column!r} is one of several numbers to predict, so expected numbers, or "
                                f"nothing where one is not known; not so in {rows_in_words(split, wrong or [0])} "
                                f"({quoted(str(rows[(wrong or [0])[0]]))}).")
            known = [one for one in _numbers(split, column) if not math.isnan(one)]
            _refuse_strange(column, name, split, _numbers(split, column))
            if not known:
                raise DataError(f"data.{name}: {column!r} is empty in every example. Leave the column out of data.label.")
            if name == "train" and len(set(known)) < 2:
                raise DataError(f"data.label: {column!r} is the same number in every training example.")
            if len(known) < len(rows):
                logger.warning("data.%s: %r is not known of %d of %d examples: not learnt or judged there", name, column,
                            len(rows) - len(known), len(rows))
    if section.labels is not None and set(section.labels) != set(columns):
        raise DataError(f"data.labels: got {one_of(section.labels)}; expected the label columns {one_of(columns)}.")
    names = section.labels or columns
    return Problem("numbers", columns, names, names)


def scaled(problem: Problem, section: Classified, splits: Mapping[str, Dataset]) -> Problem:
    """With the units in which numbers are learnt: the recipe's, else the mean and standard deviation of the training data.

    Raises:
        DataError: units of what is no number to predict.
    """
    said = section.label_scale
    if problem.kind != "regression":
        if said is not None:
            raise DataError("data.label_scale: it is of numbers to predict, and here the label is none. Leave it out.")
        return problem
    names = problem.names or problem.columns
    if unknown := [name for name in said or {} if name not in names]:
        raise DataError(f"data.label_scale: no number is called {unknown[0]!r}; expected some of {one_of(names)}."
                        f"{did_you_mean(unknown[0], names)}")
    found = _scale_of(problem.encode(splits.get("train", next(iter(splits.values())))))
    pairs = [(said or {}).get(name, own) for name, own in zip(names, found)]
    for name, (mean, deviation) in zip(names, pairs):
        logger.info("data.label: %r is learnt in units of %g around %g", name, deviation, mean)
    means, deviations = zip(*pairs)
    return replace(problem, scale=Scale(means, deviations))


def _scale_of(numbers: Any) -> list[tuple[float, float]]:
    """Mean and standard deviation by output; to as many digits as make a difference."""
    found = []
    for column in np.asarray(numbers, np.float64).reshape(len(numbers), -1).T:
        known = column[~np.isnan(column)]
        deviation = float(known.std()) or 1.0  # of a single example, with which nothing is trained
        place = _DIGITS - 1 - math.floor(math.log10(deviation))
        found.append((round(float(known.mean()), place), round(deviation, place)))
    return found


def _numbers(split: Dataset, column: str) -> list[float]:
    """Raises:
        ValueError: something is no number.
    """
    return [number_or_none(value) for value in values(split, column)]


def _is_number(value: Any) -> bool:
    try:
        number_or_none(value)
    except ValueError:
        return False
    return True


def _refuse_strange(column: str, name: str, split: Dataset, numbers: Sequence[float]) -> None:
    strange = [row for row, value in enumerate(numbers) if not is_null(value) and not abs(value) <= _LARGEST]
    if strange:
        raise DataError(f"data.{name}: {column!r} is not finite, or too large for 32 bits, in "
                        f"{rows_in_words(split, strange)}.")
