"""Parquet and Arrow files, with every check that their formats allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stilla.errors import DataError

_BYTES = 2**26  # that a batch of rows is meant to take
_ROWS = 10_000


def parquet_tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file.

    Raises:
        DataError: it holds more or fewer rows than it says.
        OSError, pa.ArrowException: checksums, lengths, texts or numbers of damaged pages, as far as they show.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        rows = file.metadata.num_rows
        size = sum(max(0, file.metadata.row_group(group).total_byte_size) for group in range(file.num_row_groups))
        each = max(1, min(_ROWS, _BYTES * max(rows, 1) // max(size, 1)))
        found = 0
        for batch in file.iter_batches(each):
            batch.validate(full=True)
            found += len(batch)
            yield pa.Table.from_batches([batch], schema=batch.schema.with_metadata(file.schema_arrow.metadata))
    if found != rows:
        raise DataError(f"{str(path)!r}: is damaged: it says {rows} rows and holds {found}.")


def arrow_tables(path: Path) -> Iterator[pa.Table]:
    """The rows of an Arrow file, of either kind.

    Raises:
        OSError, pa.ArrowException: it is no Arrow file, or damaged as far as that shows.
    """
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            source.seek(0)
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        for batch in batches:
            batch.validate(full=True)
            yield pa.Table.from_batches([batch])
