"""Plain text as rows: lines, paragraphs or whole files."""

from __future__ import annotations

from collections.abc import Iterator
from logging import INFO
from pathlib import Path
from typing import Literal

import pyarrow as pa

from stilla.data.kept import Notes
from stilla.data.opened import read_text, refuse_nul

Document = Literal["paragraph", "line", "file"]
_CHARACTERS = 2**24  # of a batch


def tables(path: Path, document: Document, notes: Notes) -> Iterator[pa.Table]:
    """One column, `text`. A line without a character but spaces is empty: it parts paragraphs, and is no document itself.

    Raises:
        DataError: the file is no UTF-8 text.
    """
    texts: list[str] = []
    count = size = 0
    lines = [0]
    for text in _texts(path, document, lines):
        refuse_nul(path, "\0" in text)
        texts.append(text)
        count, size = count + 1, size + len(text)
        if size > _CHARACTERS:
            yield pa.table({"text": pa.array(texts, pa.string())})
            texts, size = [], 0
    if texts:
        yield pa.table({"text": pa.array(texts, pa.string())})
    if document != "file" and count != lines[0]:
        notes.append((INFO, f"{path.name}: {lines[0]} lines became {count} {document}s; empty lines are none"))


def _texts(path: Path, document: Document, lines: list[int]) -> Iterator[str]:
    with read_text(path, None) as text:
        if document == "file":
            whole = text.read()
            if whole.strip():
                yield whole
            return
        paragraph: list[str] = []
        for line in text:
            lines[0] += 1
            if document == "line":
                if line.strip():
                    yield line.removesuffix("\n")
            elif line.strip():
                paragraph.append(line)
            elif paragraph:
                yield "".join(paragraph).removesuffix("\n")
                paragraph = []
        if paragraph:
            yield "".join(paragraph).removesuffix("\n")
