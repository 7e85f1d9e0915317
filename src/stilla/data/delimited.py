"""CSV and TSV, strictly: every row has as many fields as there are columns, every field is the text that stands there."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from stilla.data.kept import Notes
from stilla.data.opened import long_fields, read_text, refuse_nul
from stilla.data.quotation import written_with_quotes
from stilla.errors import DataError, quoted

_BYTES = 2**24  # of text that is read at once
_ROWS = 20_000
_KEPT = 2**28  # bytes of a file whose rows are kept until the last has been seen
_FEW = 1000  # different values of a column that is looked at for labels
_LONG = 80  # characters of a name that a column hardly has


@dataclass(frozen=True)
class Form:
    """How fields and rows are told apart. headed: whether the first row names the columns."""

    path: Path
    separator: str
    quoting: bool
    headed: bool = True

    @contextmanager
    def rows(self) -> Iterator[Any]:
        """A reader of the `csv` module."""
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        try:
            with long_fields(), read_text(self.path, "") as lines:
                yield csv.reader(lines, delimiter=self.separator, quoting=quoting, strict=True)
        except csv.Error as error:
            raise DataError(_misquoted(self, error)) from error


def tables(path: Path, separator: str, notes: Notes, header: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file as columns of text; a field without a character is null. header: the columns' names, where the first
    row does not say them; one of just these, in whatever order, does.

    CSV has quotation marks as RFC 4180 says. TSV has none, unless a program evidently wrote them.

    Raises:
        DataError: a row with more or fewer fields than there are columns, a quotation mark that does not end, two columns of
        one name; with the number of the line.
    """
    form = Form(path, separator, separator == "," or written_with_quotes(path, separator, notes))
    with form.rows() as reader:
        first: list[str] = next((row for row in reader if any(field.strip() for field in row)), [])
        begins = reader.line_num
    if header is None or sorted(field.strip() for field in first) == sorted(header):
        names = _names(form, first)
        _tell_examples(form, names, notes)
    else:
        form, names = replace(form, headed=False), [*header]
    quick = _quick(form, names) if begins == 1 else None
    yield from _slow_tables(form, names, notes) if quick is None else quick


def _slow_tables(form: Form, names: Sequence[str], notes: Notes) -> Iterator[pa.Table]:
    """By Python's `csv`, which says of every row where it lies."""
    count = empty = 0
    surplus: int | None = None
    size = 100
    with form.rows() as reader:
        if form.headed:
            next(row for row in reader if any(field.strip() for field in row))
            empty = reader.line_num - 1
        while chunk := list(islice(reader, size)):
            rows = [row for row in chunk if row and not (len(row) == 1 < len(names) and not row[0].strip())]
            empty += len(chunk) - len(rows)
            if not rows:
                continue
            if surplus is None:
                surplus = _surplus(names, rows[0])
            if set(map(len, rows)) != {len(names) + surplus}:
                raise DataError(_uneven(form, names, surplus))
            columns = list(zip(*rows))
            if any(map(any, columns[len(names):])):
                raise DataError(_uneven(form, names, 0))
            table = pa.table({name: _column(form, values) for name, values in zip(names, columns)})
            yield table
            count += len(rows)
            size = min(_ROWS, max(1, _BYTES * len(rows) // max(table.nbytes, 1)))
        lines = reader.line_num
    if surplus:
        notes.append((WARNING, f"{form.path.name}: every row ends in {surplus} separator{'s' * (surplus > 1)} more than the "
                               "header; left out, as nothing stands behind"))
    below = lines - form.headed
    if below != count:
        if below - empty > count:
            _refuse_swallowed(form, names)
        notes.append((INFO, f"{form.path.name}: {lines} lines became {count} rows: {'one is the header, ' * form.headed}"
                            f"{empty} are empty, {max(0, below - empty - count)} go on with a quoted text"))


def _quick(form: Form, names: Sequence[str]) -> Iterable[pa.Table] | None:
    """The rows, if each is a line with as many fields as the header, and nothing else is there to be said."""
    lines = _plain_lines(form)
    if lines is None:
        return None
    small = form.path.stat().st_size < _KEPT
    kept: list[pa.Table] = []
    rows = 0
    try:
        for table in _quick_tables(form, names):
            rows += len(table)
            if small:
                kept.append(table)
    except pa.ArrowInvalid:  # what is wrong, and where, the slow way says
        return None
    if rows != lines - form.headed:
        return None
    return kept if small else _quick_tables(form, names)


def _quick_tables(form: Form, names: Sequence[str]) -> Iterator[pa.Table]:
    """By Arrow, several times as fast, which is less strict about quotation marks."""
    reader = arrow_csv.open_csv(
        form.path,
        arrow_csv.ReadOptions(column_names=list(names), skip_rows=int(form.headed), block_size=_BYTES, encoding="utf8"),
        arrow_csv.ParseOptions(delimiter=form.separator, quote_char='"' if form.quoting else False),
        arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True),
    )
    with reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _plain_lines(form: Form) -> int | None:
    """The number of lines, if all end alike and every quotation mark opens a field, closes one or is one of two within.

    Marks open and close in turns, as two within a quoted text close and open it again.
    """
    lines = 0
    outside = np.frombuffer(f"{form.separator}\r\n".encode(), np.uint8)
    end = b"\n"
    with form.path.open("rb") as file:
        if file.read(4).startswith((b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5", b"\x04\x22\x4d")):
            return None
        file.seek(3 if file.seek(0) == 0 and file.read(3) == b"\xef\xbb\xbf" else 0)
        while block := file.read(_BYTES):
            block += file.readline()
            if b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
                return None
            lines += block.count(b"\n")
            if form.quoting and (found := block.count(b'"')):
                if found % 2:  # a quoted text of several lines
                    return None
                codes = np.frombuffer(b"\n" + block + b"\n", np.uint8)
                places = np.flatnonzero(codes == ord('"'))
                opening, closing = places[::2], places[1::2]
                again = np.zeros(len(opening), bool)
                again[1:] = opening[1:] == closing[:-1] + 1
                behind = np.isin(codes[closing + 1], outside)
                behind[:-1] |= again[1:]
                if not (np.isin(codes[opening - 1], outside) | again).all() or not behind.all():
                    return None
            end = block[-1:]
    return lines + (end != b"\n")


def _names(form: Form, header: Sequence[str]) -> list[str]:
    names = [name.strip() for name in header]
    refuse_nul(form.path, any("\0" in name for name in names))
    marks = [mark for mark in ";,\t|" if len(names) == 1 and mark in names[0]]
    if marks:
        wanted = "tabs (.tsv)" if form.separator == "\t" else "commas (.csv)"
        other = {"\t": ".tsv", ",": ".csv"}.get(marks[0])
        mend = f"Call it {other}." if other else "Write it so (pandas.read_csv(FILE, sep=MARK).to_csv(FILE, index=False)), " \
            "or as JSON lines."
        raise DataError(f"{str(form.path)!r}: its columns are separated by {marks[0]!r}; expected {wanted}. {mend}")
    names = [name or f"Unnamed: {place}" for place, name in enumerate(names)]  # as pandas calls it, the writer of such files
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{str(form.path)!r}: two columns are called {quoted(twice[0])}; expected a name for each. If the "
                        "first line is an example, name the columns in the recipe: data.header: [...].")
    return names


def _tell_examples(form: Form, names: Sequence[str], notes: Notes) -> None:
    """Say where what is read as the names of columns is longer than names are."""
    longest = max(names, key=len, default="")
    if len(longest) > _LONG:
        notes.append((WARNING, f"{form.path.name}: its first line is read as the names of its columns, and one is "
                               f"{quoted(longest, 60)}. If that line is an example, name the columns in the recipe: "
                               "data.header: [...]"))


def _surplus(names: Sequence[str], first: Sequence[str]) -> int:
    """How many empty fields every row has behind the last column: what a separator at the end of each line makes."""
    more = len(first) - len(names)
    return more if more > 0 and not any(first[len(names):]) else 0


def _column(form: Form, values: Sequence[str]) -> pa.Array:
    array = pa.array(values, pa.string())
    refuse_nul(form.path, bool(pc.any(pc.match_substring(array, "\0")).as_py()))
    return pc.if_else(pc.equal(array, ""), None, array)


# --- what is wrong, found in a second reading ---


def _numbered(form: Form) -> Iterator[tuple[int, int, list[str]]]:
    """Rows with the first and last of their lines."""
    with form.rows() as reader:
        before = 0
        for row in reader:
            yield before + 1, reader.line_num, row
            before = reader.line_num


def _uneven(form: Form, names: Sequence[str], surplus: int) -> str:
    """The first row that has not as many fields as there are columns."""
    wanted, passed = len(names), not form.headed
    for line, _, row in _numbered(form):
        if not row or not (passed or any(field.strip() for field in row)):
            continue
        blank = len(row) == 1 < wanted and not row[0].strip()
        if passed and not blank and (len(row) != wanted + surplus or any(row[wanted:])):
            fields = f"{len(row)} field{'s' * (len(row) != 1)}"
            whose = "the header" if form.headed else "the recipe's `header`"
            said = (f"{str(form.path)!r}: line {line} has {fields}, {whose} has {wanted} "
                    f"({', '.join(names[:8])}{', ...' * (wanted > 8)}): {quoted(form.separator.join(row), 120)}.")
            if len(row) > wanted and form.quoting:
                return (f"{said} Put texts that contain {form.separator!r} between quotation marks; if the first column are "
                        "names of rows, name it in the header.")
            return f"{said} Expected a field for every column, empty where there is no value."
        passed = True
    return f"{str(form.path)!r}: changed while it was read."


def _misquoted(form: Form, error: csv.Error) -> str:
    line, ended = 1, False
    try:
        for _, last, _ in _numbered_plainly(form):
            line = last + 1
    except csv.Error:
        ended = "unexpected end" in str(error)
    if ended:
        return (f"{str(form.path)!r}: a quotation mark in the row that begins in line {line} does not end. Write a quotation "
                "mark within a text twice, and the text between quotation marks.")
    return (f"{str(form.path)!r}: in the row that begins in line {line}, a quoted text goes on behind its closing quotation "
            f"mark ({error}). Write a quotation mark within a text twice (\"\"), and the text between quotation marks.")


def _numbered_plainly(form: Form) -> Iterator[tuple[int, int, list[str]]]:
    with long_fields(), read_text(form.path, "") as lines:
        reader = csv.reader(lines, delimiter=form.separator, strict=True)
        before = 0
        for row in reader:
            yield before + 1, reader.line_num, row
            before = reader.line_num


def _refuse_swallowed(form: Form, names: Sequence[str]) -> None:
    """A quoted text of several lines that all look like rows: a quotation mark that was meant as a character.

    Its lines but the last have as many fields as the header, and the values of other rows where a column has few of them.
    """
    seen: list[Counter[str]] = [Counter() for _ in names]
    several: list[tuple[int, int]] = []
    single = 0
    for first, last, row in islice(_numbered(form), int(form.headed), None):
        if last > first and row:
            several.append((first, last))
        elif len(row) == len(names):
            single += 1
            for values, value in zip(seen, row):
                if len(values) <= _FEW:
                    values[value] += 1
    labels = {place: values for place, values in enumerate(seen) if values and 2 * len(values) <= single}
    for (first, last), lines in zip(several, _lines(form.path, several)):
        with long_fields():
            rows = [next(csv.reader([line], delimiter=form.separator), [])
                    for line in [lines[0].replace('"', ""), *lines[1:-1]]]
        alike = len(names) > 1 and all(len(row) == len(names) and all(row[place] in known for place, known in labels.items())
                                       for row in rows)
        if alike and (labels or len(rows) > 1):
            raise DataError(
                f"{str(form.path)!r}: the quotation mark in line {first} ends in line {last} only, and the lines "
                f"between look like rows: {quoted(lines[0].rstrip(), 120)}. Write a quotation mark within a text twice, "
                "and the text between quotation marks.")


def _lines(path: Path, spans: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
    with read_text(path, "") as lines:
        numbered = enumerate(lines, 1)
        for first, last in spans:
            yield [line for number, line in _until(numbered, last) if number >= first]


def _until(numbered: Iterator[tuple[int, str]], last: int) -> Iterator[tuple[int, str]]:
    """(number, line) up to the line of that number."""
    for number, line in numbered:
        yield number, line
        if number == last:
            return
