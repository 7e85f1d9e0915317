"""Examples that cannot be used: refused by name, or left out and said, as the recipe asks (`data.broken`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import DataError
from stilla.recipe import Data
from stilla.tasks.shared.label_checks import rows_in_words

logger = logging.getLogger(__name__)


def empty(columns: Sequence[Sequence[str | None]]) -> NDArray[np.int64]:
    """Rows where a text of one of the columns is null or only spaces."""
    rows = [row for row, texts in enumerate(zip(*columns)) if not all(text and text.strip() for text in texts)]
    return np.array(rows, np.int64)


def refuse_empty(
    section: Data, name: str, split: Dataset, columns: Sequence[Sequence[str | None]], named: str
) -> None:
    """`name`: of the split. `named`: the columns, in words.

    Raises:
        DataError: there are empty texts, and the recipe does not leave them out.
    """
    rows = empty(columns)
    if len(rows):
        refuse_or_leave_out(section, f"data.{name}: {named} is null or empty in {len(rows)} of {len(split)} examples",
                            rows_in_words(split, rows.tolist()))


def without_empty(
    section: Data | None, name: str, split: Dataset, columns: Sequence[Sequence[str | None]], named: str
) -> Dataset:
    """The split without them. `name` and `named` as for `refuse_empty`.

    Raises:
        DataError: there are empty texts, and the recipe does not leave them out.
    """
    if section is not None:
        refuse_empty(section, name, split, columns, named)
    rows = empty(columns)
    return split.select(np.setdiff1d(np.arange(len(split)), rows)) if len(rows) else split


def refuse_or_leave_out(section: Data, found: str, which: str) -> None:
    """`found`: what is wrong with how many. `which`: the first of them, in words.

    Raises:
        DataError: the recipe does not leave them out.
    """
    if section.broken == "refuse":
        raise DataError(f"{found}: {which}. Remove them, or leave them out with data.broken: skip.")
    logger.warning("%s; left out: %s", found, which)
