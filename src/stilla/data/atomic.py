"""Atomic files, as RecBole reads them (Zhao et al. 2021, arXiv:2011.01731): tab-separated, with the type of every column in
the header, `user_id:token item_id:token timestamp:float`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stilla.data import delimited
from stilla.data.kept import Notes
from stilla.errors import DataError, one_of, quoted

TYPES = ("token", "float", "token_seq", "float_seq")


def tables(path: Path, notes: Notes) -> Iterator[pa.Table]:
    """Tokens as text, floats as numbers, sequences (their parts separated by spaces) as lists.

    Raises:
        DataError: a column without a type, or of another; a float that is no number; see `delimited.tables`.
    """
    for table in delimited.tables(path, "\t", notes):
        yield pa.table({name: _typed(path, name, kind, table.column(place))
                        for place, (name, kind) in enumerate(_header(path, table.column_names))})


def _header(path: Path, names: list[str]) -> list[tuple[str, str]]:
    """(name, type) of every column."""
    parted = [(name.rpartition(":")[0], name.rpartition(":")[2]) for name in names]
    wrong = [whole for whole, (name, kind) in zip(names, parted) if not name or kind not in TYPES]
    if wrong:
        raise DataError(f"{str(path)!r}: the column {quoted(wrong[0])} has no type that is known; expected one behind a "
                        f"colon, {one_of(TYPES)} (`user_id:token`), or another suffix (.tsv) for a file without types.")
    return parted


def _typed(path: Path, name: str, kind: str, texts: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    try:
        if kind.endswith("_seq"):
            lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
            return lists if kind == "token_seq" else lists.cast(pa.list_(pa.float64()))
        return texts.cast(pa.float64()) if kind == "float" else texts
    except pa.ArrowInvalid as error:
        raise DataError(f"{str(path)!r}: {quoted(name)} is of the type {kind}, and a value is no number: {error}.") from error
