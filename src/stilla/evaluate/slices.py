"""Groups of examples that a column of the data tells apart: a language, a source, in scope or out of it, short and long.

A column of few different values is a group for each; numbers of many values are cut into quarters. Free text, ids and
nested values make no groups, and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value
from jaxtyping import Int
from numpy.typing import NDArray

from stilla.errors import DataError, all_at_once, all_of, did_you_mean, one_of, quoted

MOST = 100
"""Different values of a column that makes groups."""
FEW = 12
"""Different values up to which each is a group of its own, numbers too."""
QUARTERS = (0.25, 0.5, 0.75)
MISSING = "(missing)"
"""What the group of examples without a value is called."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The examples of a split that have this value in this column. `rows`: their places in the split."""

    column: str
    name: str
    rows: Int[NDArray[np.int64], "rows"]


def slices_of(split: Dataset, columns: Sequence[str]) -> tuple[Slice, ...]:
    """Every group of every column, a column's in the order of its values, those without a value last.

    Raises:
        DataError: columns that are not there, or that make no groups; all of them.
    """
    found: list[Slice] = []
    problems = []
    for column in columns:
        try:
            found += _of_column(split, column)
        except DataError as error:
            problems.append(f"evaluate.slices: {error}")
    if problems:
        raise all_at_once(problems, DataError)
    return tuple(found)


def by_value(split: Dataset, column: str) -> dict[str, Int[NDArray[np.int64], "rows"]]:
    """The rows of each value, however many there are; of none, those without one.

    Raises:
        DataError: there is no such column, or it holds nested values.
    """
    found: dict[str, list[int]] = {}
    for row, value in enumerate(_values(split, column)):
        if not _is_missing(value):
            found.setdefault(_plain(value), []).append(row)
    return {name: np.array(found[name], np.int64) for name in sorted(found)}


def _of_column(split: Dataset, column: str) -> list[Slice]:
    return [Slice(column, name, np.array(rows, np.int64))
            for name, rows in _grouped(column, _values(split, column)).items()]


def _values(split: Dataset, column: str) -> list[Any]:
    if column not in split.column_names:
        raise DataError(f"there is no column {quoted(column)}; expected {one_of(split.column_names)}."
                        f"{did_you_mean(column, split.column_names)}")
    feature = split.features[column]
    kind = feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()
    if not isinstance(feature, ClassLabel | Value) or "binary" in kind:
        raise DataError(f"{quoted(column)} holds values of the kind {kind}; expected text, classes, numbers, or true and "
                        "false")
    values = split.select_columns([column]).with_format(None)[:][column]
    if isinstance(feature, ClassLabel):
        values = [None if value is None or value < 0 else feature.names[value] for value in values]
    return list(values)


def _grouped(column: str, values: Sequence[Any]) -> dict[str, list[int]]:
    """The rows of each group, by its name."""
    there = [value for value in values if not _is_missing(value)]
    numbers = [_number(value) for value in there]
    known = [number for number in numbers if number is not None]
    naming: Callable[[Any], str] = _plain
    if known and len(known) == len(there):
        if len(set(known)) > FEW:
            edges = sorted(set(np.quantile(known, QUARTERS, method="inverted_cdf").tolist()))
            naming = _Quarters(edges)
        order: Mapping[str, float] = {naming(value): number for value, number in sorted(
            zip(there, known), key=lambda one: -one[1])}
    else:
        order = {name: place for place, name in enumerate(sorted(set(map(_plain, there))))}
        if len(order) > MOST or (len(order) > FEW and 2 * len(order) > len(there)):  # texts, names, ids
            first = all_of([quoted(name) for name in list(order)[:3]])
            raise DataError(f"{quoted(column)} holds {len(order):,} different values in {len(there):,} examples ({first} "
                            f"...); expected a column that tells groups apart, with at most {MOST} values, or numbers")
    found: dict[str, list[int]] = {name: [] for name in sorted(order, key=lambda name: order[name])}
    for row, value in enumerate(values):
        found.setdefault(MISSING if _is_missing(value) else naming(value), []).append(row)
    return found


@dataclass(frozen=True)
class _Quarters:
    """'up to 12', 'above 12, up to 31', 'above 31'."""

    edges: Sequence[float]

    def __call__(self, value: Any) -> str:
        number = _number(value)
        assert number is not None  # all are
        place = int(np.searchsorted(self.edges, number))
        above = [f"above {self.edges[place - 1]:g}"] if place else []
        return ", ".join([*above, *([f"up to {self.edges[place]:g}"] if place < len(self.edges) else [])])


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> float | None:
    """The number that it is, or that its text is (CSV has nothing but text); None of words and of what has no end."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).strip()
