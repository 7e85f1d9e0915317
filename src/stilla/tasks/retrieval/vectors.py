"""Files of vectors that somebody has kept of texts: Parquet, JSONL, npz."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stilla.errors import DataError, all_of, one_of, quoted

_NAMES = ("text", "key", "id")
"""What the column is usually called that says whose vectors they are; else the only one of texts."""

Vectors = NDArray[np.float32]


def read(path: str) -> tuple[tuple[str, ...], Vectors]:
    """Keys, and a vector for each: a column of texts and one of lists of numbers, or in npz an array of each.

    Raises:
        DataError: no such file or columns, numbers that are none, vectors of different lengths or without a direction, a key
            with two vectors.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise DataError(f"{path!r}: no such file")
    keys, rows = {".jsonl": _of_lines, ".npz": _of_arrays, ".parquet": _of_parquet}[place.suffix](place)
    return _checked(path, keys, rows)


def _of_parquet(place: Path) -> tuple[list[Any], Any]:
    try:
        table = pq.read_table(place)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(place)!r}: cannot be read as Parquet ({error})") from error
    texts = [one.name for one in table.schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)]
    lists = [one.name for one in table.schema if _is_list(one.type) and _is_number(one.type.value_type)]
    key, vector = _columns(str(place), texts, lists)
    column = table[vector].combine_chunks()
    if column.null_count:
        raise DataError(f"{str(place)!r}: {column.null_count:,} of {len(column):,} rows have no vector")
    return table[key].to_pylist(), _rows(column)


def _rows(column: Any) -> Any:
    """Without a Python number for each of millions."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        return flat.reshape(len(column), column.type.list_size)
    ends = np.cumsum(np.diff(column.offsets))
    return flat.reshape(len(column), -1) if len({*np.diff(ends, prepend=0).tolist()}) == 1 else np.split(flat, ends[:-1])


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _of_lines(place: Path) -> tuple[list[Any], Any]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{str(place)!r}, line {number}: no JSON ({error})") from error
        if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
            raise DataError(f"{str(place)!r}, line {number}: expected an object with the fields of the first line: a "
                            f"text and "
                            "a list of numbers")
        rows.append(row)
    if not rows:
        raise DataError(f"{str(place)!r}: has no lines")
    key, vector = _columns(str(place), [name for name, value in rows[0].items() if isinstance(value, str)],
                           [name for name, value in rows[0].items() if isinstance(value, list)])
    return [row[key] for row in rows], [row[vector] for row in rows]


def _of_arrays(place: Path) -> tuple[list[Any], Any]:
    try:
        with np.load(place, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{str(place)!r}: cannot be read ({error}); expected an array of texts (of numpy's own strings, no "
                        "objects: those could run code) and one of vectors") from error
    key, vector = _columns(str(place), [name for name, one in arrays.items() if one.dtype.kind == "U" and one.ndim == 1],
                           [name for name, one in arrays.items() if one.dtype.kind in "fiu" and one.ndim == 2])
    if len(arrays[key]) != len(arrays[vector]):
        raise DataError(f"{str(place)!r}: {len(arrays[key]):,} texts in {key!r} and {len(arrays[vector]):,} vectors in "
                        f"{vector!r}; expected as many")
    return arrays[key].tolist(), arrays[vector]


def _columns(place: str, texts: Sequence[str], lists: Sequence[str]) -> tuple[str, str]:
    key = next((name for name in _NAMES if name in texts), texts[0] if len(texts) == 1 else None)
    if key is None:
        _refuse(place, "whose the vectors are", texts, f"a column of texts called {one_of(_NAMES)}, or only one of texts")
    if len(lists) != 1:
        _refuse(place, "the vectors", lists, "exactly one column of lists of numbers")
    return key, lists[0]


def _refuse(place: str, what: str, found: Sequence[str], wanted: str) -> NoReturn:
    raise DataError(f"{place!r}: which column is {what}? Got {all_of([repr(one) for one in found]) or 'none'}; "
                    f"expected {wanted}")


def _checked(place: str, keys: Sequence[Any], rows: Any) -> tuple[tuple[str, ...], Vectors]:
    nameless = sum(not isinstance(key, str) for key in keys)
    if nameless or not len(keys):
        raise DataError(f"{place!r}: {nameless:,} of {len(keys):,} vectors have no text or key that they are of")
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise DataError(f"{place!r}: vectors of {one_of([str(one) for one in sorted(widths)])} numbers; expected the "
                        f"same of all")
    try:
        vectors = np.require(rows, np.float32, "W")  # of Parquet's own memory a copy
    except (TypeError, ValueError) as error:
        raise DataError(f"{place!r}: vectors that are no lists of numbers ({error})") from error
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1) if vectors.ndim == 2 else np.zeros(len(keys))
    wrong = ~(np.isfinite(lengths) & (lengths > 0))
    if wrong.any():
        raise DataError(f"{place!r}: {int(wrong.sum()):,} of {len(keys):,} vectors have no direction (all zeros, or "
                        f"numbers that "
                        f"are not finite), the first that of {quoted(keys[int(wrong.argmax())])}")
    return _once(place, keys, vectors)


def _once(place: str, keys: Sequence[str], vectors: Vectors) -> tuple[tuple[str, ...], Vectors]:
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        if not np.array_equal(vectors[first.setdefault(key, row)], vectors[row]):
            raise DataError(f"{place!r}: two different vectors of {quoted(key)}, in rows {first[key] + 1} and {row + 1}; "
                            "expected one of each")
    return tuple(first), vectors if len(first) == len(keys) else vectors[[*first.values()]]
