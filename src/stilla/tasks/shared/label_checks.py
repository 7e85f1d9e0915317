"""How labels are spelled, and what no label may be: null, hidden, or outside the known ones."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List

from stilla.data import rows_as_read
from stilla.errors import DataError, all_of, did_you_mean
from stilla.tasks.shared.columns import values

logger = logging.getLogger(__name__)


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


def warn_of_twins(names: Sequence[str]) -> None:
    """Labels that a person takes for one, and a model for several."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(plainly(name), []).append(name)
    twins = [several for several in alike.values() if len(several) > 1]
    if twins:
        listed = "; ".join(all_of([repr(name) for name in several]) for several in twins[:5])
        logger.warning("data.label: these count as different labels, and differ in case, spaces or hyphens only: %s%s",
                       listed, " ..." if len(twins) > 5 else "")


def plainly(name: str) -> str:
    """A name without what people write differently by accident: but `C++` is not `C`, nor -1 one."""
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\w)", "", name.strip().lower())


def strange_among_numbers(names: Sequence[str]) -> list[str]:
    """The few that are no finite numbers where all others are."""
    strange = [name for name in names if not _is_finite_number(name)]
    return strange if 10 * len(strange) <= len(names) else []


def _is_finite_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def rows_in_words(split: Dataset, rows: Sequence[int]) -> str:
    """'row 3' or 'rows 3, 5, 9 ...', counted from 0 in what was read, where a person looks for them."""
    listed = ", ".join(str(row) for row in rows_as_read(split, rows[:5]))
    return f"{'row' if len(rows) == 1 else 'rows'} {listed}{' ...' if len(rows) > 5 else ''}"
