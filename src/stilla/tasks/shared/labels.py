"""What a label column means: one class, several, or a number; the classes' names; and their order in a model.

What is found is a `Problem`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List, Value

from stilla.errors import DataError, all_of, did_you_mean, one_of, quoted
from stilla.tasks.shared.amounts import are_numbers, one_number, several_numbers
from stilla.tasks.shared.columns import said
from stilla.tasks.shared.label_checks import (
    is_null,
    refuse_nulls,
    refuse_unknown,
    rows_in_words,
    speller,
    warn_of_rare,
    warn_of_twins,
)
from stilla.tasks.shared.label_values import Notation, feature_of, flags, notation_of, read
from stilla.tasks.shared.problem import Activation as Activation
from stilla.tasks.shared.problem import Kind as Kind
from stilla.tasks.shared.problem import Problem as Problem
from stilla.tasks.shared.sections import Labelled

logger = logging.getLogger(__name__)

_EXACT = 2**53  # from here on, not every whole number is a float
_FEW = 20  # up to so many different whole numbers are classes without asking


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
    refuse_nulls(column, splits, section.label_separator)
    notation = notation_of(section, column, where, train)
    rows = read(train, column, notation)
    feature = feature_of(train.features[column], notation, rows)
    if isinstance(feature, List | LargeList):
        return _lists(section, column, splits, feature, rows, where, notation)
    if section.kind == "multi_label":
        raise DataError(
            f"data.kind: got multi_label, but {column!r} holds {said(feature)}; expected a column of lists, "
            "or several columns of 0 and 1 in data.label."
        )
    if _is_number(section, column, feature, rows):
        return one_number(column, splits, where, notation)
    spell = speller(feature)
    occurring = Counter(map(spell, rows))
    names, raw, named = _classes(section, column, feature, occurring, len(rows))
    declared = section.labels is not None or isinstance(feature, ClassLabel)
    refuse_unknown(column, raw, splits, notation, declared=declared)
    if where == "train" and len(occurring) < 2:
        raise DataError(f"data.label: all {len(rows)} training examples have the same label, "
                        f"{quoted(next(iter(occurring)))} in {column!r}: there is nothing to learn.")
    absent = [name for name, spelling in zip(names, raw) if spelling not in occurring]
    if absent:
        logger.warning("data.label: no example of %s in %s", all_of(absent[:8]), where)
    if not declared:
        warn_of_rare(occurring)
    return Problem("class", (column,), names, raw, named, notation)


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
    fraction = next((value for value in rows if value != value // 1), None) if floating else None
    if section.kind == "single_label" or section.labels is not None:
        if fraction is not None:
            raise DataError(f"data.kind: got classes, but {column!r} holds fractions "
                            f"({fraction}); expected names or whole numbers, or data.kind: "
                            "regression.")
        return False
    if fraction is not None or (floating and any(abs(value) >= _EXACT for value in rows)):
        logger.info("data.label: %r holds fractions: read as an amount (data.kind: regression)", column)
        return True
    if not (floating or whole):
        return False
    different = sorted({int(value) for value in rows})
    few = len(different) <= _FEW and 2 * len(different) <= len(rows)
    counted = different[0] in (0, 1) and different[-1] - different[0] + 1 == len(different)
    if few or (counted and 10 * len(different) <= len(rows)):
        if floating:
            logger.warning("data.label: %r holds whole numbers written as fractions (%s): read as classes; set data.kind: "
                           "regression if they are amounts", column, rows[0])
        return False
    raise DataError(
        f"data.kind: {column!r} holds {len(different)} different whole numbers from {different[0]} to "
        f"{different[-1]} in {len(rows)} examples: are they classes or amounts? Set data.kind: single_label "
        "or regression."
    )


def _classes(
    section: Labelled, column: str, feature: Any, spelled: Collection[str], examples: int
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
    if raw == ("false", "true") and {name.casefold() for name in given} == {"false", "true"}:
        return tuple(name.casefold() for name in given)
    if (numbers or raw == ("false", "true")) and len(raw) == len(given):
        return raw
    outside = [name for name in raw if name not in given]
    hint = did_you_mean(outside[0], given) if outside else ""
    raise DataError(
        f"data.labels: got {len(given)} names, but {column!r} holds {len(raw)} classes"
        + (f", among them {all_of([quoted(name) for name in outside[:8]])}" if outside else "")
        + f"; expected every one of them.{hint}"
    )


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


# --- several labels ---


def _lists(
    section: Labelled, column: str, splits: Mapping[str, Dataset], feature: Any, rows: Sequence[Sequence[Any]], where: str,
    notation: Notation,
) -> Problem:
    if section.kind in ("single_label", "regression"):
        raise DataError(f"data.kind: got {section.kind}, but {column!r} holds lists; expected multi_label.")
    read_splits = {name: read(split, column, notation) for name, split in splits.items()}
    flat = {value for several in rows for value in several if not is_null(value)}
    width = _width(section, column, feature, rows, flat) if flat else None
    _refuse_odd_items(column, splits, read_splits, partial=width is not None)
    if not flat:
        raise DataError(f"data.label: every list in {column!r} is empty: there is nothing to learn.")
    if width is not None:
        return _flags_in_lists(section, column, splits, read_splits, width, notation)
    spell = speller(feature)
    names, raw, named = _classes(section, column, feature, {spell(value) for value in flat}, len(rows))
    refuse_unknown(column, raw, splits, notation, declared=section.labels is not None)
    return Problem("list", (column,), names, raw, named, notation)


def _flags_in_lists(
    section: Labelled, column: str, splits: Mapping[str, Dataset], read_splits: Mapping[str, Sequence[Sequence[Any]]],
    width: int, notation: Notation,
) -> Problem:
    """A flag may be null where nobody knows whether its label applies."""
    raw = tuple(str(position) for position in range(width))
    names = section.labels or raw
    if len(names) != len(raw):
        raise DataError(f"data.labels: got {len(names)} names; {column!r} holds {len(raw)} flags per example.")
    for name, split in splits.items():
        wrong = [row for row, several in enumerate(read_splits[name])
                 if len(several) != len(raw) or not {item for item in several if not is_null(item)} <= {0, 1}]
        if wrong:
            raise DataError(f"data.{name}: expected {len(raw)} flags of 0 and 1 in {column!r}, not so in "
                            f"{rows_in_words(split, wrong)}.")
        unknown = [sum(map(is_null, flags_of_one)) for flags_of_one in zip(*read_splits[name])]
        if empty := [label for label, count in zip(names, unknown) if count == len(split)]:
            raise DataError(f"data.{name}: the flag of {all_of([quoted(label) for label in empty[:5]])} in {column!r} is "
                            "null in every example: it says of none whether the label applies. Leave it out of the lists.")
        if any(unknown):
            logger.warning("data.%s: %d of %d flags in %r are null, and not known: not learnt or judged there",
                           name, sum(unknown), width * len(split), column)
    rows = read_splits["train" if "train" in splits else next(iter(splits))]
    if all(not any(map(is_null, several)) and sum(several) == 1 for several in rows):
        logger.warning("data.label: exactly one of the %d flags in %r is set in every example: read as labels that do "
                       "not exclude each other; write the class itself into a column if they do", width, column)
    return Problem("indicators", (column,), names, raw, section.labels is not None, notation)


def _refuse_odd_items(
    column: str, splits: Mapping[str, Dataset], read_splits: Mapping[str, Sequence[Sequence[Any]]], *, partial: bool
) -> None:
    """partial: lists have a place for every label, which may be null."""
    for name, lists in read_splits.items():
        holes = [] if partial else [row for row, several in enumerate(lists) if any(map(is_null, several))]
        if holes:
            raise DataError(f"data.{name}: {column!r} holds nulls inside the lists of {rows_in_words(splits[name], holes)}. "
                            "Write the names that apply and no others; or, where of some labels nobody knows it, one flag "
                            "for every label: [1, null, 0].")
        shares = [row for row, several in enumerate(lists)
                  if any(isinstance(item, float) and not is_null(item) and not item.is_integer() for item in several)]
        if shares:
            some = lists[shares[0]]
            raise DataError(
                f"data.{name}: {column!r} holds lists of fractions ({quoted(some)} in {rows_in_words(splits[name], shares)}"
                "): probabilities are no labels here. Write the likeliest class, or a list of 0 and 1, into a column.")


def _width(section: Labelled, column: str, feature: Any, rows: Sequence[Sequence[Any]], flat: Collection[Any]) -> int | None:
    """How many flags every example has; None where lists name classes.

    [0, 1] could also list the classes 0 and 1. A repeated value shows that it does not; and so does a pair in every row, as
    every example would have every label.
    """
    lengths = {len(several) for several in rows}
    boolean = isinstance(feature.feature, Value) and feature.feature.dtype == "bool"
    if len(lengths) > 1 or not set(flat) <= {0, 1} or isinstance(feature.feature, ClassLabel):
        if boolean:
            raise DataError(f"data.label: {column!r} holds lists of true and false of {len(lengths)} different lengths; "
                            "expected one for every label.")
        return None
    width = lengths.pop()
    if width == 1 and not boolean:
        if section.labels is None:
            raise DataError(f"data.label: {column!r} holds [0] and [1] only: a flag of one label, or one of two classes? "
                            "Name the label, or both classes, in data.labels.")
        return 1 if len(section.labels) == 1 else None
    if width == 2 and section.labels is None:
        logger.warning("data.label: %r holds two numbers of 0 and 1 per example: read as flags of two labels", column)
    return width


def _several_columns(section: Labelled, columns: tuple[str, ...], splits: Mapping[str, Dataset]) -> Problem:
    if section.kind == "single_label":
        raise DataError(f"data.kind: got {section.kind} with {len(columns)} label columns; expected one "
                        "column.")
    if section.label_separator is not None:
        raise DataError(f"data.label_separator: got {len(columns)} label columns, each of which is one label; leave it out.")
    if are_numbers(section, columns, splits):
        return several_numbers(section, columns, splits)
    for column in columns:
        for name, split in splits.items():
            values = flags(split, column)
            wrong = [row for row, value in enumerate(values) if value not in (0, 1) and not is_null(value)]
            if wrong:
                raise DataError(f"data.{name}: {column!r} is one of several label columns, so expected 0, 1 or nothing where "
                                f"it is not known; not so in {rows_in_words(split, wrong)}. If these are numbers to "
                                "predict, set data.kind: regression.")
            unknown = sum(map(is_null, values))
            if unknown == len(values):
                raise DataError(f"data.{name}: {column!r} is empty in every example: it says of none whether the label "
                                "applies. Leave the column out of data.label.")
            if unknown:
                logger.warning("data.%s: whether %r applies is not known of %d of %d examples: not learnt or judged there",
                            name, column, unknown, len(values))
    if section.labels is not None and set(section.labels) != set(columns):
        raise DataError(f"data.labels: got {one_of(section.labels)}; expected the label columns "
                        f"{one_of(columns)}.")
    names = section.labels or columns
    return Problem("columns", columns, names, names)
