"""Examples that Python gives where a recipe has names: whatever has columns with names becomes a dataset, as it is shown.

Values keep what `datasets` knows of them (classes, pictures, sound); what cannot be written down and read again as often as a
run needs it is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from stilla.data.arrow_types import plain_column, plain_table
from stilla.errors import DataError, all_of

Examples: TypeAlias = Dataset | DatasetDict
TAKEN = ("a file, a folder or a name, a Dataset or DatasetDict, a DataFrame (pandas or polars), an Arrow table, a list of "
         "dicts or a dict of lists")
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError, AttributeError)
"""What `datasets` and Arrow raise of values that no column can hold."""
_SHOWN = 5
_LONGEST = 200


@runtime_checkable
class ArrowStream(Protocol):
    """What gives its rows as Arrow tables do: polars, pyarrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def examples(value: object) -> Examples:
    """The examples as a dataset, or as a dict of them by split, which `data.sources.read` reads as such.

    Raises:
        DataError: it has no columns with names, or is none of what is taken; values that no column can hold.
    """
    made = _made(value)
    empty = [name for name, split in made.items() if len(split) == 0] if isinstance(made, DatasetDict) else len(made) == 0
    if empty:
        raise DataError(f"there are no examples in it{f' ({all_of(empty)})' if isinstance(empty, list) else ''}")
    return made


def one_split(value: object) -> Dataset:
    """The same where one split is meant; of several, the one called test.

    Raises:
        DataError: as for `examples`, or it leaves open which split is meant.
    """
    made = examples(value)
    if isinstance(made, Dataset):
        return made
    if len(made) > 1 and "test" not in made:
        raise DataError(f"holds {all_of(sorted(made))}; give the one that is meant")
    return made["test"] if "test" in made else next(iter(made.values()))


def are_columns(value: Mapping[Any, Any]) -> bool:
    """Whether it is a dict of lists."""
    return bool(value) and all(_is_column(one) for one in value.values())


def in_short(value: object) -> str:
    """What it is, in a few words: never its content."""
    kind = type(value)
    where, name = kind.__module__.partition(".")[0], kind.__qualname__.rpartition(".")[2]
    whole = name if where in ("builtins", "__main__") else f"{where}.{name}"
    size = f" of shape {tuple(value.shape)}" if isinstance(value, np.ndarray | Tensor) else ""
    return f"{whole[:60]}{size}"


def _made(value: object) -> Examples:
    if isinstance(value, DatasetDict):
        if not value:
            raise DataError("there are no splits in it")
        return DatasetDict({name: _as_shown(split, f"{name}: ") for name, split in value.items()})
    if isinstance(value, Dataset):
        return _as_shown(value)
    if isinstance(value, pd.DataFrame):
        return _of_frame(value)
    if isinstance(value, Mapping):
        return _of_columns(value)
    if isinstance(value, list | tuple):
        return _of_rows(value)
    if isinstance(value, ArrowStream) and not isinstance(value, pd.Series):
        return _of_table(pa.table(value))
    raise DataError(f"got {in_short(value)}; expected {TAKEN}{_way(value)}")


def _way(value: object) -> str:
    if isinstance(value, IterableDataset | IterableDatasetDict):
        return ". A run passes over its data several times: load the dataset without streaming"
    if isinstance(value, Iterator):
        return ". A run passes over its data several times: Dataset.from_generator, or list(...), makes what it can"
    if isinstance(value, TorchDataset | DataLoader):
        return (". Its items are tensors for one model, and a recipe's data are what tensors are made of; "
                "DistillationTrainer takes such a dataset")
    if isinstance(value, np.ndarray | Tensor | pd.Series | pa.Array | pa.ChunkedArray):
        return '. Columns need names: {"text": ..., "label": ...}'
    if in_short(value) == "polars.LazyFrame":
        return ". It is a plan and no rows yet: .collect()"
    if isinstance(value, ModuleType | type) or callable(value):
        return ". Call it, and give what it returns"
    return ""


def _as_shown(split: object, where: str = "") -> Dataset:
    """The columns that its rows show, without the form that they show them in."""
    if not isinstance(split, Dataset):
        raise DataError(f"{where}got {in_short(split)}; expected a Dataset")
    shown = split.format
    if shown["type"] == "custom":
        raise DataError(f"{where}its rows pass through a function (set_transform, with_transform), which no file can hold; "
                        "apply it with .map, or take it away with .with_format(None)")
    plain = split.with_format(None)
    if shown["output_all_columns"] or list(shown["columns"]) == list(split.column_names):
        return plain
    return plain.select_columns(list(shown["columns"]))


def _of_rows(rows: Sequence[Any]) -> Dataset:
    strange = next(((number, row) for number, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if strange is not None:
        number, row = strange
        several = ". Several files are given as the folder that they lie in" if isinstance(row, str) else ""
        raise DataError(f"got a {in_short(rows)} whose item {number} is {in_short(row)}; expected a dict for every "
                        f"example{several}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    # as in JSON lines: what a row does not say is missing there
    return _of_values({name: [row.get(name) for row in rows] for name in names}) if names else Dataset.from_dict({})


def _of_columns(columns: Mapping[Any, Any]) -> Dataset:
    if wrong := [name for name, values in columns.items() if not _is_column(values)]:
        first = wrong[0]
        raise DataError(f"got a dict in which {first!r:.60} is {in_short(columns[first])}; expected a list of values for "
                        "every column")
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = all_of([f"{name[:60]} {length}" for name, length in list(lengths.items())[:_SHOWN]])
        raise DataError(f"its columns have different lengths: {listed}")
    return _of_values({name: list(values) for name, values in columns.items()})


def _is_column(values: object) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim > 0
    return isinstance(values, Sequence | pd.Series) and not isinstance(values, str | bytes | bytearray | memoryview)


def _of_frame(frame: pd.DataFrame) -> Dataset:
    """Levels of an index that have a name are columns; row numbers are not."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    _refuse_names(list(frame.columns))
    return _of_values({name: _of_series(frame[name]) for name in frame.columns})


def _of_series(series: pd.Series) -> Any:
    if series.dtype != object:
        return plain_column(pa.chunked_array([pa.Array.from_pandas(series)]))
    missing = [bool(one) if isinstance(one, bool | np.bool_) else False for one in map(pd.isna, series)]
    return [None if gone else value for value, gone in zip(series, missing)]


def _of_table(table: pa.Table) -> Dataset:
    _refuse_names(table.column_names)
    try:
        return Dataset(plain_table(table))
    except (pa.ArrowException, NotImplementedError, ValueError) as error:
        raise DataError(f"its columns cannot be stored: {_first_line(error)}") from error


def _of_values(columns: Mapping[Any, Any]) -> Dataset:
    """As JSON lines are read: where the parts of a value differ in kind from row to row, they stay as they are."""
    _refuse_names(list(columns))
    problems = [f"column {name!r:.60}: {why}" for name, values in columns.items() if (why := _misfit(values))]
    if problems:
        raise DataError("; ".join(problems[:_SHOWN]))
    return Dataset.from_dict(dict(columns), on_mixed_types="use_json")


def _misfit(values: Sequence[Any]) -> str | None:
    """Why values are no rows of one column, or could not be read back as what they were."""
    why = None
    try:
        if _features(values) == _features(values, on_mixed_types="use_json"):
            return None
    except _UNFIT as error:
        why = _first_line(error)
    kinds = sorted({in_short(value) for value in values if value is not None})[:_SHOWN]
    if len(kinds) > 1:
        return f"its values are of several kinds, {all_of(kinds)}; expected one"
    try:
        json.dumps(list(values))
        _features(values, on_mixed_types="use_json")
    except _UNFIT as error:
        return f"its values cannot be stored: {why or _first_line(error)}"
    return None


def _features(values: Sequence[Any], **options: Any) -> Any:
    return Dataset.from_dict({"": values}, **options).features


def _refuse_names(names: Sequence[Any]) -> None:
    if strange := [name for name in names if not isinstance(name, str)]:
        raise DataError(f"a column is called {strange[0]!r:.60} ({in_short(strange[0])}); expected text as the name of every "
                        "column")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two columns are called {twice[0]!r:.60}; expected a name for each")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:_LONGEST]
