"""How labels are spelled, and what no label may be: null, hidden, or outside the known ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List

from stilla.data import rows_as_read
from stilla.errors import DataError, did_you_mean
from stilla.tasks._columns import values


def speller(feature: Any) -> Callable[[Any], str]:
    """How a value of the column is spelled: a class by its name, 1.0 like 1, True as `true`."""
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    if isinstance(inner, ClassLabel):
        names = list(inner.names)
        return lambda value: names[value]
    return _spelling


def _spelling(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def refuse_nulls(column: str, splits: Mapping[str, Dataset]) -> None:
    """Labels that are missing, or hidden (-1 in a class column).

    Raises:
        DataError: column, counts and first rows, of every split.
    """
    problems = []
    for name, split in splits.items():
        classes = isinstance(split.features[column], ClassLabel)
        rows = enumerate(values(split, column))
        bad = [row for row, value in rows if _is_null(value) or (classes and value == -1)]
        if bad:
            hidden = " (-1 in a class column means hidden)" if classes else ""
            problems.append(f"data.{name}: the label {column!r} is missing in {len(bad)} of {len(split)} "
                            f"examples{hidden}: {rows_in_words(split, bad)}.")
    if problems:
        raise DataError(" ".join([*problems, "Remove these examples, or label them."]))


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def refuse_unknown(column: str, raw: Sequence[str], splits: Mapping[str, Dataset], *, declared: bool) -> None:
    """Labels outside the known ones.

    Raises:
        DataError: their names, how often each occurs, and the first rows.
    """
    known = set(raw)
    for name, split in splits.items():
        spell = speller(split.features[column])
        found: dict[str, list[int]] = {}
        for row, value in enumerate(values(split, column)):
            for one in value if isinstance(value, list) else [value]:
                if spell(one) not in known:
                    found.setdefault(spell(one), []).append(row)
        if found:
            first = list(found.items())[:5]
            listed = [f"{label!r} ({len(rows)} times, {rows_in_words(split, rows)})" for label, rows in first]
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            lack = "is not among the label's names" if declared else "does not occur in the training data"
            hint = did_you_mean(next(iter(found)), raw)
            raise DataError(f"data.{name}: {column!r} holds what {lack}: {', '.join(listed)}{more}.{hint} "
                            "Correct it, or name all labels in data.labels.")


def rows_in_words(split: Dataset, rows: Sequence[int]) -> str:
    """'row 3' or 'rows 3, 5, 9 ...', counted from 0 in what was read, where a person looks for them."""
    listed = ", ".join(str(row) for row in rows_as_read(split, rows[:5]))
    return f"{'row' if len(rows) == 1 else 'rows'} {listed}{' ...' if len(rows) > 5 else ''}"
