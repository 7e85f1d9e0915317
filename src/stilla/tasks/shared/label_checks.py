"""How labels are spelled, and what no label may be: null, hidden, or outside the known ones."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List

from stilla.data import rows_as_read
from stilla.errors import DataError, all_of, did_you_mean, quoted
from stilla.tasks.shared.columns import values
from stilla.tasks.shared.label_values import Notation, feature_of, read

logger = logging.getLogger(__name__)


def speller(feature: Any) -> Callable[[Any], str]:
    """How a value of the column is spelled: a class by its name, 1.0 like 1, True as `true`."""
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    if isinstance(inner, ClassLabel):
        names = list(inner.names)
        return lambda value: names[value]
    return spelling


def spelling(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def refuse_nulls(column: str, splits: Mapping[str, Dataset], separator: str | None = None) -> None:
    """Labels that are missing, or hidden (-1 in a class column). `separator`: what stands between several.

    Raises:
        DataError: column, counts and first rows, of every split.
    """
    problems = []
    for name, split in splits.items():
        classes = isinstance(split.features[column], ClassLabel)
        rows = enumerate(values(split, column))
        bad = [row for row, value in rows if is_null(value) or (classes and value == -1)]
        if classes:
            _refuse_outside(column, name, split)
        if bad:
            hidden = " (-1 in a class column means hidden)" if classes else ""
            problems.append(f"data.{name}: the label {column!r} is missing in {len(bad)} of {len(split)} "
                            f"examples{hidden}: {rows_in_words(split, bad)}.")
    if problems:
        spoken = separator is not None and bool(separator.strip())
        none = f" Where none of the labels applies, write {quoted(separator)} alone." if spoken else ""
        raise DataError(" ".join([*problems, f"Remove these examples, or label them.{none}"]))


def is_null(value: Any) -> bool:
    """Whether nothing stands there: nothing at all, spaces, or what is no number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def _refuse_outside(column: str, name: str, split: Dataset) -> None:
    """Numbers of a class column that stand for none of its names."""
    count = split.features[column].num_classes
    rows = [row for row, value in enumerate(values(split, column)) if value is not None and not -1 <= value < count]
    if rows:
        raise DataError(f"data.{name}: {column!r} has {count} classes, 0 to {count - 1}, and holds "
                        f"{values(split.select(rows[:1]), column)[0]} in {rows_in_words(split, rows)}.")


def refuse_unknown(
    column: str, raw: Sequence[str], splits: Mapping[str, Dataset], notation: Notation, *, declared: bool
) -> None:
    """Labels outside the known ones.

    Raises:
        DataError: their names, how often each occurs, and the first rows.
    """
    known = set(raw)
    for name, split in splits.items():
        rows_read = read(split, column, notation)
        spell = speller(feature_of(split.features[column], notation, rows_read))
        found: dict[str, list[int]] = {}
        for row, value in enumerate(rows_read):
            for one in value if isinstance(value, list) else [value]:
                if spell(one) not in known:
                    found.setdefault(spell(one), []).append(row)
        if found:
            first = list(found.items())[:5]
            listed = [f"{quoted(label)} ({len(rows)} times, {rows_in_words(split, rows)})" for label, rows in first]
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
        listed = "; ".join(all_of([quoted(name) for name in several[:5]]) for several in twins[:5])
        logger.warning("data.label: these count as different labels, and differ in case, spaces or hyphens only: %s%s",
                       listed, " ..." if len(twins) > 5 else "")


def plainly(name: str) -> str:
    """A name without what people write differently by accident: but `C++` is not `C`, nor -1 one."""
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\w)", "", name.strip().lower())


def warn_of_rare(counts: Mapping[str, int]) -> None:
    """Classes that occur once where others occur often: a slip of the pen makes such."""
    once = [name for name, count in counts.items() if count == 1]
    if once and 2 * len(once) <= len(counts) + 1 and max(counts.values()) >= 10:
        logger.warning("data.label: a single example each of %s%s; a mistake in writing?",
                       all_of([quoted(name) for name in once[:5]]), " ..." if len(once) > 5 else "")


def rows_in_words(split: Dataset, rows: Sequence[int]) -> str:
    """'row 3' or 'rows 3, 5, 9 ...', counted from 0 in what was read, where a person looks for them."""
    listed = ", ".join(str(row) for row in rows_as_read(split, rows[:5]))
    return f"{'row' if len(rows) == 1 else 'rows'} {listed}{' ...' if len(rows) > 5 else ''}"
