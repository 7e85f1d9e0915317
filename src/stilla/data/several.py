"""The examples of several tasks in one table: each with its task's name, its columns under that name, the others null."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from stilla.data.unlabelled import MARK, with_nulls
from stilla.errors import DataError, all_of

PART = "stilla_part"
"""A column: which task's an example is."""


def united(parts: Mapping[str, Mapping[str, Dataset]]) -> dict[str, Dataset]:
    """By split the examples of all tasks, one task after the other. Of some there may be no training data, where all that is
    learnt of them is unlabelled.

    Raises:
        DataError: some have test data, and some have none.
    """
    found: dict[str, Dataset] = {}
    for split in dict.fromkeys(split for splits in parts.values() for split in splits):
        lacking = [name for name, splits in parts.items() if split not in splits]
        if lacking and split != "train":
            having = [name for name in parts if name not in lacking]
            raise DataError(f"data.parts: there are {split} data of {all_of(having)}, and none of {all_of(lacking)}, so that "
                            f"no number would be of all tasks. Give some there too (`{split}: {{split: 0.1}}`), or none.")
        found[split] = in_one_table({name: splits[split] for name, splits in parts.items() if split in splits})
    return found


def part_of(split: Dataset, name: str) -> tuple[Dataset, NDArray[np.int64]]:
    """One task's examples in the columns that its own data have, and where they stand among all.

    Raises:
        DataError: the examples do not say which task's they are.
    """
    if PART not in split.column_names:
        raise DataError("these examples are of one table, and nothing says which of several tasks they belong to: every task "
                        "has data of its own (data.parts). Measure a head by itself: its folder lies in the student's")
    rows = np.flatnonzero(np.array(split.select_columns([PART]).with_format(None)[:][PART]) == name)
    own = [column for column in split.column_names if column.startswith(f"{name}.")]
    some = split.select(rows).select_columns([*own, *([MARK] if MARK in split.column_names else [])])
    return some.rename_columns({column: column.removeprefix(f"{name}.") for column in own}), rows


def in_one_table(parts: Mapping[str, Dataset]) -> Dataset:
    """The examples of every task, one task after the other, each with its name."""
    renamed = {name: part.with_format(None).rename_columns({column: f"{name}.{column}" for column in part.column_names})
               for name, part in parts.items()}
    features = {column: feature for part in renamed.values() for column, feature in part.features.items()}
    wide = []
    for name, part in renamed.items():
        others = {column: feature for column, feature in features.items() if column not in part.features}
        wide.append(_marked(with_nulls(part, others), name).select_columns([PART, *features]))
    return concatenate_datasets(wide)


def _marked(part: Dataset, name: str) -> Dataset:
    column = Dataset(pa.table({PART: pa.array([name] * len(part), pa.string())}))
    return concatenate_datasets([column, part], axis=1)
