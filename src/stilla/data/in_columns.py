"""Words in columns, a line each, sentences parted by empty lines: as CoNLL's tasks and CoNLL-U write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from logging import INFO
from pathlib import Path

import pyarrow as pa

from stilla.data.kept import Notes
from stilla.data.opened import read_text, refuse_nul, suffix
from stilla.errors import DataError, counted, quoted

_UNIVERSAL = ("tokens", "lemmas", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U behind the number of the word."""
_NUMBER = re.compile(r"\d+([-.]\d+)?")
_COMMENT = re.compile(r"#\s*(id\b|\S+\s*=)")
_DOCUMENT = "-DOCSTART-"
_SENTENCES = 10_000  # of a table


def tables(path: Path, notes: Notes) -> Iterator[pa.Table]:
    """A row a sentence, with a list of every column: the words in `tokens`, the last column in `tags`, those between as
    `column_2` and so on; in CoNLL-U all by their names, without parts of words that are written as one and without empty
    nodes.

    Raises:
        DataError: lines of a file with different numbers of columns; a single column; a word's number that is none; with the
            number of the line.
    """
    universal = suffix(path) == ".conllu"
    names: tuple[str, ...] | None = _UNIVERSAL if universal else None
    rows: list[list[tuple[str, ...]]] = []
    sentences = 0
    for sentence in _sentences(path, universal=universal):
        names = names or _names(path, sentence[0])
        rows.append([fields for _, fields in sentence])
        sentences += 1
        if len(rows) == _SENTENCES:
            yield _table(rows, names)
            rows = []
    if rows and names:
        yield _table(rows, names)
    notes.append((INFO, f"{path.name}: {counted(sentences, 'sentence')}"))


def _table(rows: Sequence[Sequence[tuple[str, ...]]], names: Sequence[str]) -> pa.Table:
    strings = pa.list_(pa.string())
    return pa.table({name: pa.array([[word[place] for word in row] for row in rows], strings)
                     for place, name in enumerate(names)})


def _names(path: Path, first: tuple[int, tuple[str, ...]]) -> tuple[str, ...]:
    line, fields = first
    if len(fields) < 2:
        raise DataError(f"{str(path)!r}: line {line} has a single column, {quoted(fields[0])}; expected a word a line, with "
                        "its tag in the last column, and an empty line behind every sentence.")
    return ("tokens", *(f"column_{place}" for place in range(2, len(fields))), "tags")


def _sentences(path: Path, *, universal: bool) -> Iterator[list[tuple[int, tuple[str, ...]]]]:
    """(line, fields) of every word of a sentence."""
    sentence: list[tuple[int, tuple[str, ...]]] = []
    width: int | None = len(_UNIVERSAL) + 1 if universal else None
    tabs: bool | None = True if universal else None
    with read_text(path, None) as lines:
        for number, line in enumerate(lines, 1):
            line = line.removesuffix("\n")
            refuse_nul(path, "\0" in line)
            if not line.strip():
                if sentence:
                    yield sentence
                sentence = []
                continue
            if (universal and line.startswith("#")) or (not sentence and _COMMENT.match(line)):
                continue
            tabs = "\t" in line if tabs is None else tabs
            fields = tuple(line.split("\t")) if tabs else tuple(line.split())
            if fields[0] == _DOCUMENT:
                continue
            width = width or len(fields)
            if len(fields) != width:
                raise DataError(f"{str(path)!r}: line {number} has {len(fields)} column{'s' * (len(fields) != 1)}, the lines "
                                f"before have {width}: {quoted(line)}. Expected a word a line, its columns parted by "
                                f"{'tabs' if tabs else 'spaces'}, and an empty line behind every sentence.")
            if not universal:
                sentence.append((number, fields))
            elif not _NUMBER.fullmatch(fields[0]):
                raise DataError(f"{str(path)!r}: line {number} begins with {quoted(fields[0])}; expected the number of a "
                                "word, as CoNLL-U has it.")
            elif fields[0].isdigit():  # not 3-4, nor 5.1
                sentence.append((number, fields[1:]))
    if sentence:
        yield sentence
