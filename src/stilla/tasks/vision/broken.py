"""Pictures that cannot be read: named and counted, and refused or left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from datasets import Dataset

from stilla.recipe import Data
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.vision.pictures import Pictures


def broken_pictures(section: Data | None, name: str, split: Dataset, column: str) -> Mapping[int, str]:
    """Pictures that cannot be read, by row, and why.

    Raises:
        DataError: there are some, and the recipe does not leave them out.
    """
    pictures = Pictures.of(split, column)
    broken = pictures.broken()
    if not broken or section is None:
        return broken
    found = f"data.{name}: {len(broken)} of {len(pictures)} pictures cannot be read"
    listed = "; ".join(f"{pictures.name(row)}: {reason}" for row, reason in list(broken.items())[:5])
    refuse_or_leave_out(section, found, listed + (" ..." if len(broken) > 5 else ""))
    return broken


def usable_pictures(section: Data | None, pool: Dataset, columns: Collection[str]) -> Dataset:
    """The unlabelled examples of which all of these pictures can be read.

    Raises:
        DataError: see `broken_pictures`.
    """
    broken = {row for column in columns for row in broken_pictures(section, "unlabelled", pool, column)}
    return pool.select(np.setdiff1d(np.arange(len(pool)), np.array(list(broken), np.int64))) if broken else pool
