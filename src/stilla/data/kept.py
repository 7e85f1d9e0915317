"""Tables that are read once, into the cache of `datasets`, and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset, Features

from stilla.data.arrow_types import plain_table
from stilla.errors import DataError

logger = logging.getLogger(__name__)

READING = 2  # of what files are taken to say: a change here makes every file be read anew

Notes = list[tuple[int, str]]
"""What a person should know of a reading: levels of `logging` and words, said whenever the rows are taken."""
Reader = Callable[[Notes], Iterator[pa.Table]]


def kept(read: Reader, paths: Sequence[Path], options: Sequence[str]) -> Dataset:
    """The rows that `read` gives of the files, under the features that their schema names.

    They are read anew where a file, its times of change (which nothing but the file system sets) or `options` are others.

    Raises:
        DataError: there are no rows, or parts of one column cannot be of one type.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "stilla" / _key(paths, options)
    if not (folder / "notes.json").is_file():
        _write(read, folder)
    for level, words in json.loads((folder / "notes.json").read_text(encoding="utf-8")):
        logger.log(level, "%s", words)
    return Dataset.from_file(str(folder / "rows.arrow"))


def _key(paths: Sequence[Path], options: Sequence[str]) -> str:
    said: list[object] = [READING, pa.__version__, datasets.__version__, *options]
    for path in paths:
        state = path.stat()
        said.append((str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    return hashlib.blake2b(repr(said).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _write(read: Reader, folder: Path) -> None:
    """All or nothing: whoever looks meanwhile, or after a crash, sees no half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        notes: Notes = []
        _merge(_parts(read(notes), work), work / "rows.arrow")
        (work / "notes.json").write_text(json.dumps(notes), encoding="utf-8")
        try:
            work.rename(folder)
        except OSError:
            if not (folder / "notes.json").is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _parts(tables: Iterator[pa.Table], work: Path) -> list[Path]:
    """Tables as they come, in a file of its own for every change of their schema."""
    paths: list[Path] = []
    writer, schema = None, None
    try:
        for table in tables:
            table = plain_table(table)
            if writer is None or table.schema != schema:
                if writer is not None:
                    writer.close()
                schema = table.schema
                paths.append(work / f"{len(paths)}.arrow")
                writer = pa.ipc.new_stream(str(paths[-1]), Features.from_arrow_schema(schema).arrow_schema)
            if len(table):
                writer.write_table(table.cast(Features.from_arrow_schema(schema).arrow_schema))
    finally:
        if writer is not None:
            writer.close()
    return paths


def _merge(parts: Sequence[Path], whole: Path) -> None:
    schemas = [_schema(part) for part in parts]
    if not schemas:
        raise DataError("there are no examples in it.")
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive") if len(schemas) > 1 else schemas[0]
        if len(schemas) == 1:
            os.replace(parts[0], whole)
        else:
            schema = Features.from_arrow_schema(schema).arrow_schema
            with pa.ipc.new_stream(str(whole), schema) as writer:
                for part in parts:
                    with pa.memory_map(str(part)) as source, pa.ipc.open_stream(source) as stream:
                        for batch in stream:
                            writer.write_table(_as(pa.Table.from_batches([batch]), schema))
                    part.unlink()
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(f"one column holds values of different types: {error}") from error
    with pa.memory_map(str(whole)) as source, pa.ipc.open_stream(source) as stream:
        if not any(len(batch) for batch in stream):
            raise DataError("there are no examples in it.")


def _schema(part: Path) -> pa.Schema:
    with pa.memory_map(str(part)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [table.column(field.name).cast(field.type) if field.name in table.column_names
               else pa.nulls(len(table), field.type) for field in schema]
    return pa.table(columns, schema=schema)
