"""Files as streams: decompressed by what they begin with, decoded by the mark that they begin with, else as UTF-8."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import pyarrow as pa

from stilla.errors import DataError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
"""What a name may end with behind the suffix of its format; what counts is what the file begins with."""

_MARKS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def suffix(path: Path) -> str:
    """The suffix of a file's format: `.csv` of `rows.csv.gz`."""
    suffixes = [one.lower() for one in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed."""
    with path.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        stream: BinaryIO
        if start.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        elif start.startswith(b"BZh"):
            stream = bz2.BZ2File(raw)  # type: ignore[assignment]
        elif start.startswith(b"\xfd7zXZ\x00"):
            stream = lzma.LZMAFile(raw)  # type: ignore[assignment]  # noqa: SIM115
        elif start.startswith((b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
            kind = "zstd" if start.startswith(b"\x28") else "lz4"
            stream = io.BufferedReader(pa.CompressedInputStream(raw, kind), 1 << 16)
        else:
            stream = raw
        yield stream


@contextmanager
def read_text(path: Path, newline: str | None) -> Iterator[TextIO]:
    """A file's text. `newline` as of `open`: None makes all line ends \\n, "" leaves them.

    Raises:
        DataError: it is not text in UTF-8, nor in the encoding that its mark names; with the line.
    """
    try:
        with opened(path) as stream:
            start = stream.read(4)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8-sig")
        with opened(path) as stream, io.TextIOWrapper(stream, encoding, newline=newline) as text:
            yield text
    except UnicodeError as error:
        raise DataError(f"{str(path)!r}: {_undecodable(path, error)}") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{str(path)!r}: cannot be decompressed: {error}") from error


def _undecodable(path: Path, error: UnicodeError) -> str:
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as here:
                return f"line {number} is not UTF-8 text; save it as UTF-8 (byte {line[here.start]:#04x}: {here.reason})."
    return f"is not the text that it begins as; save it as UTF-8 ({error})."


@contextmanager
def long_fields() -> Iterator[None]:
    """The `csv` module reads fields of any length; left to itself, it stops at 128 kB."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def refuse_nul(path: Path, found: bool) -> None:
    """A character of code 0 is a sign of damage, or of UTF-16 without its mark."""
    if found:
        raise DataError(f"{str(path)!r}: holds characters of code 0: it is damaged, or no UTF-8 text; save it as UTF-8.")
