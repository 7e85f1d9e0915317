"""What is in files: which suffix is read by what, and the rows of files of one kind, in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import datasets
import pyarrow as pa

from stilla.data import (
    atomic,
    columnar,
    delimited,
    headless,
    in_columns,
    json_rows,
    picture_folders,
    plain_text,
    sound_folders,
)
from stilla.data.kept import Notes
from stilla.data.named_files import Media, NamedFiles
from stilla.data.opened import suffix
from stilla.data.plain_text import Document
from stilla.data.stored_files import holds_files, with_own_files
from stilla.errors import DataError, all_of, brief, quoted

READERS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".conll": "columns",
    ".conllu": "columns",
    ".iob": "columns",
    ".iob2": "columns",
    ".bio": "columns",
    ".inter": "atomic",
    ".item": "atomic",
    ".user": "atomic",
    ".dat": "headless",
    ".data": "headless",
}
Unit = Document | Literal["columns", "sound", "picture"]
"""What a row is in plain text; with `columns` it is not plain, but words in columns, parted into sentences. With `sound` a
row is a sound: files are named in tables, or lie in a folder. With `picture` it has pictures, whose files tables may name."""
MEDIA: Mapping[str, Media] = {"picture": picture_folders.PICTURES, "sound": sound_folders.SOUNDS}


def tables_of(
    paths: Sequence[Path], document: Unit, header: Sequence[str] | None, notes: Notes
) -> Iterator[pa.Table]:
    """The rows of files of one kind, one after the other; tables of named columns have the same."""
    columns: frozenset[str] | None = None
    for path in paths:
        kind = READERS[suffix(path)]
        for table in one_file(path, document, notes, header):
            if columns is None:
                columns = frozenset(table.column_names)
                if twice := [name for name in columns if table.column_names.count(name) > 1]:
                    raise DataError(f"{str(path)!r}: two columns are called {quoted(twice[0])}; expected a name for each.")
            if kind in ("csv", "tsv", "parquet", "arrow", "atomic") and columns != set(table.column_names):
                odd = sorted(columns ^ set(table.column_names))[:8]
                listed = all_of([quoted(one) for one in odd])
                raise DataError(f"{str(path)!r}: has other columns than {paths[0].name} ({listed} in one of them only); "
                                "expected the same in all files of a split.")
            yield table


def one_file(
    path: Path, document: Unit, notes: Notes, header: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Its rows, with paths as of this file, and pictures or sounds in the place of their names where a row is one."""
    read = _reader(READERS[suffix(path)], header)
    named = _named_in(path, document, lambda: read(path, document, []))
    for table in read(path, document, notes):
        own = with_own_files(table, path)
        yield own if named is None else named(own)


def _named_in(
    path: Path, document: Unit, again: Callable[[], Iterator[pa.Table]] = lambda: iter(())
) -> NamedFiles | None:
    """What makes pictures or sounds of the names in a file, of tasks whose rows are some."""
    media = MEDIA.get(document)
    return None if media is None else NamedFiles(path, media, again)


def shows(path: Path, document: Literal["picture", "sound"]) -> bool:
    """Whether a table holds pictures (or sounds), or names some that lie beside it; a look at its beginning."""
    try:
        table = next(_reader(READERS[suffix(path)])(path, document, []))
        named = _named_in(path, document)
        return holds_files(table.schema) or (named is not None and named.there(table))
    except Exception:  # what is no table says nothing of the files around it
        return False


def _reader(kind: str, header: Sequence[str] | None = None) -> Callable[[Path, Unit, Notes], Iterator[pa.Table]]:
    readers: Mapping[str, Callable[[Path, Unit, Notes], Iterator[pa.Table]]] = {
        "csv": lambda path, _, notes: delimited.tables(path, ",", notes, header),
        "tsv": lambda path, _, notes: delimited.tables(path, "\t", notes, header),
        "json": lambda path, _, __: json_rows.tables(path),
        "text": lambda path, unit, notes: (
            in_columns.tables(path, notes) if unit == "columns" else
            plain_text.tables(path, "line" if unit == "sound" or unit == "picture" else unit, notes)),
        "columns": lambda path, _, notes: in_columns.tables(path, notes),
        "atomic": lambda path, _, notes: atomic.tables(path, notes),
        "headless": lambda path, _, __: headless.tables(path, header),
        "parquet": lambda path, _, __: columnar.parquet_tables(path),
        "arrow": lambda path, _, __: columnar.arrow_tables(path),
    }
    return readers[kind]


@contextmanager
def readable(where: str) -> Iterator[None]:
    """What a reader raises, in one line that names the file; its own log would say the same again."""
    logs = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    except DataError as error:
        raise (error if str(error).startswith("'") else DataError(f"{where}: {error}")) from error.__cause__
    except Exception as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(error) or type(cause).__name__ == "SchemaInferenceError":
            raise DataError(f"{where}: there are no examples in it.") from error
        words = (str(cause).strip() or repr(cause)).splitlines()[0]
        if isinstance(error, MemoryError):
            words = f"it asks for more memory than there is ({words})"
        raise DataError(f"{where}: cannot be read: {brief(words, 500)}") from error
    finally:
        datasets.logging.set_verbosity(logs)
