"""What a label column means: one class, several, or a number; the classes' names; and their order in a model.

A class has a *name* (what models and people call it) and a *raw* spelling (what stands in the data). They
differ only where the data hold numbers and someone else knows the names: the recipe (`data.labels`) or the
teacher.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value
from numpy.typing import NDArray

from stilla.errors import DataError, all_of, did_you_mean, one_of
from stilla.tasks.shared.columns import said, values
from stilla.tasks.shared.label_checks import (
    refuse_nulls,
    refuse_unknown,
    rows_in_words,
    speller,
    strange_among_numbers,
    warn_of_twins,
)
from stilla.tasks.shared.sections import Labelled

logger = logging.getLogger(__name__)

Kind = Literal["single_label", "multi_label", "regression"]
Form = Literal["class", "columns", "list", "indicators", "number"]
"""A class; several columns of 0 and 1; a list of classes; a list of 0 and 1; a number."""

_FEW = 20  # up to so many different whole numbers are classes without asking


@dataclass(frozen=True)
class Problem:
    """What there is to predict. `columns` is empty for a model whose batches a person makes."""

    form: Form
    columns: tuple[str, ...]
    names: tuple[str, ...] = ()
    """In the models' order; empty for a number."""
    raw: tuple[str, ...] = ()
    """How the data spell each of `names`."""
    named: bool = True
    """False where `names` are only the data's numbers."""

    @property
    def kind(self) -> Kind:
        kinds: dict[Form, Kind] = {"class": "single_label", "number": "regression"}
        return kinds.get(self.form, "multi_label")

    def encode(self, split: Dataset) -> NDArray[Any]:
        """(examples,) int64 classes; (examples, labels) int64 of 0 and 1; or (examples,) float32 numbers."""
        if self.form == "columns":
            flags = [_flags(values(split, column)) for column in self.raw]
            return np.stack(flags, axis=1)
        rows = values(split, self.columns[0])
        if self.form == "number":
            return np.array(rows, np.float32)
        if self.form == "indicators":
            picked = [int(position) for position in self.raw]
            return np.array(rows, np.int64)[:, picked]
        spell = speller(split.features[self.columns[0]])
        index = {spelling: position for position, spelling in enumerate(self.raw)}
        if self.form == "class":
            return np.array([index[spell(value)] for value in rows], np.int64)
        encoded = np.zeros((len(rows), len(self.names)), np.int64)
        for row, several in enumerate(rows):
            encoded[row, [index[spell(value)] for value in several]] = 1
        return encoded


def understand(section: Labelled, columns: tuple[str, ...], splits: Mapping[str, Dataset]) -> Problem:
    """What the label columns mean, from the training data (or the only split there is).

    Raises:
        DataError: values that are null, unknown or of no use; what is left open and where to say it.
    """
    where = "train" if "train" in splits else next(iter(splits))
    train = splits[where]
    if len(columns) > 1:
        return _several_columns(section, columns, splits)
    column = columns[0]
    refuse_nulls(column, splits)
    feature = train.features[column]
    rows = values(train, column)
    if isinstance(feature, List | LargeList):
        return _lists(section, column, splits, rows, where)
    if section.kind == "multi_label":
        raise DataError(
            f"data.kind: got multi_label, but {column!r} holds {said(feature)}; expected a column of lists, "
            "or several columns of 0 and 1 in data.label."
        )
    if _is_number(section, column, feature, rows):
        return _number(column, splits, where)
    spell = speller(feature)
    occurring = {spell(value) for value in rows}
    names, raw, named = _classes(section, column, feature, occurring, len(rows))
    declared = section.labels is not None or isinstance(feature, ClassLabel)
    refuse_unknown(column, raw, splits, declared=declared)
    if where == "train" and len(occurring) < 2:
        raise DataError(f"data.label: all {len(rows)} training examples have the same label, "
                        f"{occurring.pop()!r} in {column!r}: there is nothing to learn.")
    absent = [name for name, spelling in zip(names, raw) if spelling not in occurring]
    if absent:
        logger.warning("data.label: no example of %s in %s", all_of(absent[:8]), where)
    return Problem("class", (column,), names, raw, named)


# --- what is in one column ---


def _is_number(section: Labelled, column: str, feature: Any, rows: Sequence[Any]) -> bool:
    """Whether the column is an amount rather than a class."""
    floating = isinstance(feature, Value) and feature.dtype.startswith(("float", "double", "decimal"))
    whole = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint"))
    if section.kind == "regression":
        if not (floating or whole):
            raise DataError(f"data.kind: got regression, but {column!r} holds {said(feature)}; expected "
                            "numbers.")
        return True
    if section.kind == "single_label" or section.labels is not None:
        if floating and not all(float(value).is_integer() for value in rows):
            raise DataError(f"data.kind: got classes, but {column!r} holds fractions "
                            f"({_first_fraction(rows)}); expected names or whole numbers, or data.kind: "
                            "regression.")
        return False
    if floating:
        logger.info("data.label: %r holds fractions: read as an amount (data.kind: regression)", column)
        return True
    if not whole:
        return False
    different = sorted(set(rows))
    few = len(different) <= _FEW and 2 * len(different) <= len(rows)
    counted = different[0] in (0, 1) and different[-1] - different[0] + 1 == len(different)
    if few or (counted and 10 * len(different) <= len(rows)):
        return False
    raise DataError(
        f"data.kind: {column!r} holds {len(different)} different whole numbers from {different[0]} to "
        f"{different[-1]} in {len(rows)} examples: are they classes or amounts? Set data.kind: single_label "
        "or regression."
    )


def _first_fraction(rows: Sequence[float]) -> float:
    return next(value for value in rows if not float(value).is_integer())


def _number(column: str, splits: Mapping[str, Dataset], where: str) -> Problem:
    for name, split in splits.items():
        strange = [row for row, value in enumerate(values(split, column)) if not math.isfinite(value)]
        if strange:
            raise DataError(f"data.{name}: {column!r} is not finite in {rows_in_words(split, strange)}.")
    if where == "train" and len(set(values(splits[where], column))) < 2:
        raise DataError(f"data.label: {column!r} is the same number in every training example.")
    return Problem("number", (column,))


def _classes(
    section: Labelled, column: str, feature: Any, spelled: set[str], examples: int
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Names, raw spellings and whether the names are the data's own."""
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    numbers = isinstance(inner, Value) and inner.dtype.startswith(("int", "uint", "float", "double"))
    if isinstance(inner, ClassLabel):
        raw: tuple[str, ...] = tuple(inner.names)
    elif isinstance(inner, Value) and inner.dtype == "bool":
        raw = ("false", "true")
    elif all(_is_whole(name) for name in spelled):
        raw = tuple(sorted(spelled, key=int))
    else:
        raw = tuple(sorted(spelled))
    if section.labels is None:
        guessed = section.kind is None and not isinstance(inner, ClassLabel)
        if guessed and len(raw) > _FEW and 2 * len(raw) > examples:
            if strange := strange_among_numbers(raw):
                listed = all_of([repr(name) for name in strange[:5]]) + (" ..." if len(strange) > 5 else "")
                raise DataError(f"data.label: {column!r} would be numbers but for {listed}. Correct or remove these, or set "
                                "data.kind: single_label if all are classes.")
            raise DataError(f"data.label: {column!r} holds {len(raw)} different values in {examples} "
                            "examples; that looks like text, not like classes. Set data.label, or data.kind: "
                            "single_label if they are.")
        if not numbers:
            warn_of_twins(raw)
        return raw, raw, not numbers
    given = section.labels
    if len(set(given)) < len(given):
        raise DataError(f"data.labels: a name twice in {one_of(given)}.")
    return given, _raw_of(given, raw, numbers, isinstance(inner, ClassLabel), column), True


def _raw_of(
    given: tuple[str, ...], raw: tuple[str, ...], numbers: bool, declared: bool, column: str
) -> tuple[str, ...]:
    """The spelling behind each name that the recipe gives.

    Numbers are positions (0 is the first name), or, where they start elsewhere, as many as there are names,
    in order.
    """
    if set(raw) <= set(given) and not (declared and set(raw) != set(given)):
        return given
    if numbers and all(0 <= int(number) < len(given) for number in raw):
        return tuple(str(position) for position in range(len(given)))
    if (numbers or raw == ("false", "true")) and len(raw) == len(given):
        return raw
    outside = [name for name in raw if name not in given]
    hint = did_you_mean(outside[0], given) if outside else ""
    raise DataError(
        f"data.labels: got {len(given)} names, but {column!r} holds {len(raw)} classes"
        + (f", among them {all_of([repr(name) for name in outside[:8]])}" if outside else "")
        + f"; expected every one of them.{hint}"
    )


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


# --- several labels ---


def _lists(
    section: Labelled, column: str, splits: Mapping[str, Dataset], rows: Sequence[Sequence[Any]], where: str
) -> Problem:
    if section.kind in ("single_label", "regression"):
        raise DataError(f"data.kind: got {section.kind}, but {column!r} holds lists; expected multi_label.")
    feature = splits[where].features[column]
    lengths = {len(several) for several in rows}
    flat = {value for several in rows for value in several}
    if None in flat:
        holes = [row for row, several in enumerate(rows) if None in several]
        raise DataError(f"data.{where}: {column!r} holds nulls inside the lists of {rows_in_words(splits[where], holes)}.")
    if not flat:
        raise DataError(f"data.label: every list in {column!r} is empty: there is nothing to learn.")
    # [0, 1] could also list the classes 0 and 1; a repeated value shows that it does not
    repeated = any(len(set(several)) < len(several) for several in rows)
    if len(lengths) == 1 and repeated and flat <= {0, 1}:
        raw = tuple(str(position) for position in range(lengths.pop()))
        names = section.labels or raw
        if len(names) != len(raw):
            raise DataError(f"data.labels: got {len(names)} names; {column!r} holds {len(raw)} flags per "
                            "example.")
        for name, split in splits.items():
            wrong = [row for row, several in enumerate(values(split, column)) if len(several) != len(raw)]
            if wrong:
                raise DataError(f"data.{name}: expected {len(raw)} flags in {column!r}, not so in "
                                f"{rows_in_words(split, wrong)}.")
        return Problem("indicators", (column,), names, raw, section.labels is not None)
    spell = speller(feature)
    names, raw, named = _classes(section, column, feature, {spell(value) for value in flat}, len(rows))
    refuse_unknown(column, raw, splits, declared=section.labels is not None)
    return Problem("list", (column,), names, raw, named)


def _several_columns(section: Labelled, columns: tuple[str, ...], splits: Mapping[str, Dataset]) -> Problem:
    if section.kind in ("single_label", "regression"):
        raise DataError(f"data.kind: got {section.kind} with {len(columns)} label columns; expected one "
                        "column.")
    for column in columns:
        refuse_nulls(column, splits)
        for name, split in splits.items():
            wrong = [row for row, value in enumerate(values(split, column)) if value not in (0, 1)]
            if wrong:
                raise DataError(f"data.{name}: {column!r} is one of several label columns, so expected 0 or "
                                f"1; not so in {rows_in_words(split, wrong)}.")
    if section.labels is not None and set(section.labels) != set(columns):
        raise DataError(f"data.labels: got {one_of(section.labels)}; expected the label columns "
                        f"{one_of(columns)}.")
    names = section.labels or columns
    return Problem("columns", columns, names, names)


def _flags(rows: Sequence[Any]) -> NDArray[np.int64]:
    return np.array([int(value) for value in rows], np.int64)
