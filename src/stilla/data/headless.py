"""Files of fields between `::` or tabs that mostly do not name their columns: MovieLens' `ratings.dat` and `u.data`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from stilla.data.opened import read_text
from stilla.errors import DataError, all_of, quoted

_ROWS = 20_000


def tables(path: Path, header: Sequence[str] | None) -> Iterator[pa.Table]:
    """Every column as text; a field without a character is null. header: the columns' names (`data.header`); a first line of
    just these, or without it one of names alone, is a header.

    Raises:
        DataError: nobody names the columns; a line with more or fewer fields, with its number.
    """
    with read_text(path, None) as lines:
        numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, 1) if line.strip())
        first = next(numbered, (1, ""))
        separator = "::" if "::" in first[1] else "\t"
        fields = first[1].split(separator)
        if sorted(fields) == sorted(header or ()) or (header is None and all(map(str.isidentifier, fields))):
            header, first = fields, next(numbered, (2, ""))  # HetRec's name theirs
        if header is None:
            raise DataError(f"{str(path)!r}: a file of this suffix does not name its columns; it begins with "
                            f"{all_of([quoted(one) for one in fields[:6]])}. Say what they are, such as data.header: "
                            "[user_id, item_id, rating, timestamp].")
        while chunk := [first, *islice(numbered, _ROWS - 1)]:
            rows = [(number, line.split(separator)) for number, line in chunk]
            for number, row in rows:
                if len(row) != len(header):
                    raise DataError(f"{str(path)!r}: line {number} has {len(row)} fields between {quoted(separator)}, and "
                                    f"data.header names {len(header)}: {all_of(list(header))}.")
            columns = zip(*(row for _, row in rows))
            yield pa.table({name: pa.array([one or None for one in column], pa.string())
                            for name, column in zip(header, columns)})
            if (following := next(numbered, None)) is None:
                return
            first = following
