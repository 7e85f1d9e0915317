"""Which classes examples have that may have several: labels of a whole one, or classes of its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List
from numpy.typing import NDArray

from stilla.recipe import Data

Classes = list[frozenset[str]]
_SET, _UNSET = ("1", "1.0", "true"), ("0", "0.0", "false")
_UNKNOWN = ("", "none", "nan")
NOTHING = frozenset({""})
"""The class of examples that have none: they say when nothing applies."""


def classes_of_each(train: Dataset, section: Data, column: str | None) -> Classes | None:
    """Of every example; None where there are none to count. `column`: that of the label, where it is one."""
    found = _within(train, section) or _flagged(train, section) or _listed(train, section, column)
    return None if found is None or not any(found) else [one or NOTHING for one in found]


def drawn_of_each(classes: Classes, number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """So few examples that every class has so many of them, or all that there are: in one random order, first one of each
    class that has none, then a second of each that has one. Those of a smaller number are among them."""
    order = generator.permutation(len(classes)).tolist()
    taken, counts = dict[int, None](), Counter[str]()
    for least in range(1, number + 1):
        for index in order:
            if index not in taken and any(counts[one] < least for one in classes[index]):
                taken[index] = None
                counts.update(classes[index])
    return np.sort(np.array(list(taken), np.int64))


def _within(train: Dataset, section: Data) -> Classes | None:
    """Of words, or of spans."""
    lower = {name.lower(): name for name in reversed(train.column_names)}
    named = (name for name in section.columns_within if name.lower() in lower)
    column = next((lower[name.lower()] for name in named if _is_list(train.features[lower[name.lower()]])), None)
    return None if column is None else [section.classes_within(value, _names(train, column))
                                        for value in _values(train, column)]


def _flagged(train: Dataset, section: Data) -> Classes | None:
    """Of a column of 0 and 1 for every label."""
    columns = section.label_columns or ()
    if len(columns) < 2 or section.label_is_amount or not set(columns) <= set(train.column_names):
        return None
    rows = [[str(value).casefold() for value in _values(train, column)] for column in columns]
    if not {value for row in rows for value in row} <= {*_SET, *_UNSET, *_UNKNOWN}:
        return None
    return [frozenset(name for name, value in zip(columns, several, strict=True) if value in _SET)
            for several in zip(*rows, strict=True)]


def _listed(train: Dataset, section: Data, column: str | None) -> Classes | None:
    """Of lists of names, or of a flag for every label; of names in one text."""
    if column is None or section.label_is_amount:
        return None
    values, between = _values(train, column), section.between_labels
    if between is not None and not _is_list(train.features[column]):
        return [frozenset(name.strip() for name in str(value or "").split(between)) - {""} for value in values]
    if not _is_list(train.features[column]):
        return None
    names = _names(train, column)
    if names is None and len({len(value or ()) for value in values}) == 1 \
            and {str(one).casefold() for value in values for one in value} <= {*_SET, *_UNSET, *_UNKNOWN}:
        return [frozenset(str(place) for place, one in enumerate(value) if str(one).casefold() in _SET) for value in values]
    return [frozenset(str(one) for one in value or ()) for value in values]


def _is_list(feature: Any) -> bool:
    return isinstance(feature, List | LargeList)


def _names(train: Dataset, column: str) -> Sequence[str] | None:
    """By number, where the data say them."""
    inner = getattr(train.features[column], "feature", None)
    return inner.names if isinstance(inner, ClassLabel) else None


def _values(train: Dataset, column: str) -> list[Any]:
    found: list[Any] = train.with_format(None)[column][:]
    return found
