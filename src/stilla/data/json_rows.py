"""JSON lines and JSON files, strictly: an object is a row, and every value keeps its type.

Values whose types differ between rows (a number here, a text there; objects with other keys, within a column) are stored
as JSON, by `datasets`' own type, and come back as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from stilla.data import questions
from stilla.data.arrow_types import with_nulls_as_texts
from stilla.data.opened import read_text, suffix
from stilla.errors import DataError, quoted

_BYTES = 2**24  # of JSON that a batch is meant to hold
_ROWS = 10_000
_BATCH = 1000
_KEPT = 2**28  # bytes of tables that are kept until the last row has been seen
_DEEPEST = 50  # lists and objects within each other
_KEYS = 2000

Row = dict[str, Any]
Place = tuple[str | int, ...]
"""From a column down to a value: names, and 0 for the items of a list."""
Shapes = dict[Place, set[Any]]
"""What was found at a place: types, or the keys of objects. Nulls are anything."""


def tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a file: an object a line; or a list of objects, or of texts; or one object of columns, or of questions as
    SQuAD has them.

    Raises:
        DataError: what is no JSON, with its line; a key twice in an object; a row that is no object; text that UTF-8 cannot
            hold; whole numbers of more than 64 bits.
    """
    shapes: Shapes = {}
    early = _noted(path, shapes)
    types = {str(place[0]): _type(shapes, place) for place in shapes if len(place) == 1}
    if early is not None and all(table.schema == pa.schema(types.items()) for table in early):
        yield from early
        return
    rows = (row for _, row in _rows(path, json.loads))
    size = path.stat().st_size
    each = _ROWS if size < _BYTES else max(1, min(_ROWS, _BYTES * _count(path) // size))
    while types and (batch := list(islice(rows, each))):
        yield _table(batch, types, path)


def _noted(path: Path, shapes: Shapes) -> list[pa.Table] | None:
    """Note the shapes of all rows; and make tables on the way, which are the file's where no type changes and it is small."""
    tables: list[pa.Table] | None = []
    flat: set[tuple[Any, ...]] = set()
    batch: list[Row] = []
    size = 0
    for where, row in _rows(path, _loads_once):
        kinds = (*row, *map(type, row.values()))
        if kinds not in flat:
            try:
                for name, value in row.items():
                    _note(shapes, (name,), value)
            except ValueError as error:
                raise DataError(f"{str(path)!r}: {where}: {error}") from error
            if len(shapes) > _KEYS:
                raise DataError(f"{str(path)!r}: {where}: more than {_KEYS} different keys; expected the same few in every "
                                "row.")
            if dict not in kinds and list not in kinds:
                flat.add(kinds)
        if tables is None:
            continue
        batch.append(row)
        if len(batch) == _BATCH:
            tables.append(_table(batch, {str(one[0]): _type(shapes, one) for one in shapes if len(one) == 1}, path))
            size += tables[-1].nbytes
            batch = []
            if size > _KEPT or tables[-1].schema != tables[0].schema:
                tables = None
    if tables is not None and batch:
        tables.append(_table(batch, {str(one[0]): _type(shapes, one) for one in shapes if len(one) == 1}, path))
    return tables


def _table(rows: Sequence[Row], types: Mapping[str, pa.DataType], path: Path) -> pa.Table:
    return pa.table({name: _column([row.get(name) for row in rows], kind, name, path) for name, kind in types.items()})


# --- types ---


def _note(shapes: Shapes, place: Place, value: Any) -> None:
    found = shapes.setdefault(place, set())
    if isinstance(value, str):
        found.add(str)
    elif isinstance(value, dict):
        if len(place) > _DEEPEST:
            raise ValueError(f"lists and objects lie more than {_DEEPEST} deep in each other.")
        if len(found) > 1:  # stored as JSON in any case
            return
        found.add(frozenset(value))
        for name, inner in value.items():
            _note(shapes, (*place, name), inner)
    elif isinstance(value, list):
        if len(place) > _DEEPEST:
            raise ValueError(f"lists and objects lie more than {_DEEPEST} deep in each other.")
        found.add(list)
        shapes.setdefault((*place, 0), set())
        for inner in value:
            _note(shapes, (*place, 0), inner)
    elif value is not None:
        found.add(type(value))


def _type(shapes: Shapes, place: Place) -> pa.DataType:
    found = shapes[place]
    if not found:
        return pa.null()
    if found == {int, float}:
        return pa.float64()
    if len(found) > 1 or found == {frozenset()}:
        return pa.json_(pa.string())
    kind = next(iter(found))
    if kind is list:
        return pa.list_(with_nulls_as_texts(_type(shapes, (*place, 0))))
    if isinstance(kind, frozenset):
        inside = [other for other in shapes if len(other) == len(place) + 1 and other[:-1] == place]
        return pa.struct([(str(other[-1]), _type(shapes, other)) for other in inside])
    return {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[kind]


def _column(values: list[Any], kind: pa.DataType, name: str, path: Path) -> pa.Array:
    stored = _stored(kind)
    if stored == kind:
        encoded = values
    else:
        encoded = [_encoded(value, kind) for value in values]
    try:
        return pa.array(encoded, stored).cast(kind)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise DataError(f"{str(path)!r}: {quoted(name)} holds a whole number that is too large for its type: {error}"
                        ) from error


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type with text in the place of JSON, which Arrow cannot build within lists."""
    if isinstance(kind, pa.JsonType):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_stored(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _stored(field.type)) for field in kind])
    return kind


def _encoded(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return json.dumps(value, ensure_ascii=False)
    if pa.types.is_list(kind):
        return [_encoded(inner, kind.value_type) for inner in value]
    if pa.types.is_struct(kind):
        return {field.name: _encoded(value.get(field.name), field.type) for field in kind}
    return value


# --- rows ---


def _rows(path: Path, loads: Callable[[str], Any]) -> Iterator[tuple[str, Row]]:
    """Where each row stands, and the row."""
    if _by_lines(path):
        with read_text(path, "\n") as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield f"line {number}", _row(path, number, line.rstrip(), loads)
        return
    with read_text(path, None) as text:
        whole = text.read()
    for number, value in enumerate(_listed(path, _loaded(path, whole, 1, loads))):
        row = {"text": value} if isinstance(value, str) else value
        if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], dict):
            row = {"text": row[0], **row[1]}  # spaCy's: a text and what is said of it
        if not isinstance(row, dict):
            raise DataError(f"{str(path)!r}: item {number} of the list is {_said(value)}; expected objects, or texts only.")
        yield f"item {number}", row


def _count(path: Path) -> int:
    """About how many rows a large file has."""
    with read_text(path, "\n") as text:
        return sum(1 for _ in text)


def _by_lines(path: Path) -> bool:
    """Whether the file holds a value a line; a `.json` with one line alone is that value."""
    with read_text(path, "\n") as text:
        lines = (line for line in text if line.strip())
        first, second = next(lines, ""), next(lines, None)
    if first.lstrip()[:1] == "[":
        return False
    if suffix(path) != ".json":
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return second is not None


def _row(path: Path, number: int, line: str, loads: Callable[[str], Any]) -> Row:
    value = _loaded(path, line, number, loads)
    if not isinstance(value, dict):
        raise DataError(f"{str(path)!r}: line {number} is {_said(value)}; expected an object, {{...}}.")
    return value


def _loaded(path: Path, text: str, first: int, loads: Callable[[str], Any]) -> Any:
    try:
        return loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{str(path)!r}: line {first + error.lineno - 1} is no JSON: {error.msg} (character {error.colno}): "
                        f"{quoted(error.doc[max(0, error.pos - 40):error.pos + 40])}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r}: line {first}: {error}.") from error


def _loads_once(text: str) -> Any:
    """What `json.loads` gives, where every key stands once and every text is one."""
    value = _DECODER.decode(text)
    if "\\u" in text:
        _refuse_surrogates(value)
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(twice)} stands twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _refuse_surrogates(value: Any) -> None:
    """Half of a character that UTF-16 writes as two is no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("an escape stands for half a character (a lone surrogate)") from error


def _listed(path: Path, whole: Any) -> Sequence[Any]:
    """Rows of a file that is one value."""
    if isinstance(whole, list):
        return whole
    if isinstance(whole, Mapping) and questions.is_one(whole):
        try:
            return list(questions.rows(whole))
        except ValueError as error:
            raise DataError(f"{str(path)!r}: {error}.") from None
    if isinstance(whole, Mapping) and whole:
        columns = list(whole.values())
        if all(isinstance(one, list) for one in columns) and len({len(one) for one in columns}) == 1 and len(columns[0]) > 1:
            return [dict(zip(whole, values)) for values in zip(*columns)]
        if all(isinstance(one, dict) and one and all(key.isdecimal() for key in one) for one in columns) and len(
                {tuple(one) for one in columns}) == 1:  # what pandas writes
            return [dict(zip(whole, values)) for values in zip(*(one.values() for one in columns))]
        if not any(isinstance(one, list) and any(isinstance(item, dict) for item in one) and len(one) > 1 for one in columns):
            return [whole]
        names = ", ".join(quoted(name) for name in list(whole)[:8])
        raise DataError(f"{str(path)!r}: is one object with the keys {names}; expected rows: an object a line, or a list of "
                        "objects.")
    raise DataError(f"{str(path)!r}: is {_said(whole)}; expected rows: an object a line, or a list of objects.")


def _said(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
