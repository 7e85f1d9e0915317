"""Pictures or sounds that tables name by their files, relative to themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features, List

from stilla.data.decoded_sounds import are_samples
from stilla.data.stored_files import holds_files, resolved

_LOOK = 100  # names, that say where all of a file's names lead


@dataclass(frozen=True)
class Media:
    """What files are: how their names end, the column that they become in a folder of them, of what type, its name in words,
    of several and of one, and what people call the column of a table that names them, most telling first."""

    suffixes: frozenset[str]
    column: str
    feature: Any
    named: str
    one: str
    columns: tuple[str, ...]

    def ends(self, name: str) -> bool:
        return os.path.splitext(name)[1].lower() in self.suffixes


def named_files(table: pa.Table, column: str, called: str, place: Callable[[str], str], feature: Any) -> pa.Table:
    """The table with a column of names as files of this type. `called`: the column's new name. `place`: the whole path."""
    stored = [None if name is None or name == "" else {"bytes": None, "path": place(str(name))}
              for name in table.column(column).to_pylist()]
    features = Features({**Features.from_arrow_schema(table.schema), column: feature})
    index = table.column_names.index(column)
    table = table.set_column(index, column, pa.array(stored, feature.pa_type)).cast(features.arrow_schema)
    names = [called if one == column else one for one in table.column_names]
    renamed = Features({new: features[old] for new, old in zip(names, table.column_names)})
    return table.rename_columns(names).replace_schema_metadata(renamed.arrow_schema.metadata)


class NamedFiles:
    """Tables of one file, whose columns of file names hold pictures (or sounds) from then on; columns of lists of names lists
    of them.

    Such columns are the first of a usual name whose first name is a picture's, and others that hold nothing but such names,
    and none that leads elsewhere (masks, a second picture). In a table that holds pictures itself, names say where these came
    from, and stay texts but where the first one's file is there. Names that lie not beside the table are looked for in the
    one folder beside it that has any of them. What the first table with a name in a column says of it holds for all of the
    file. `again`: the file's tables from the first on, where a column has no name yet.
    """

    def __init__(self, path: Path, media: Media, again: Callable[[], Iterator[pa.Table]] = lambda: iter(())) -> None:
        self.path, self.media, self.again = path, media, again
        self._decided: dict[str, bool] = {}
        self._below: dict[str, str] = {}
        self._read_on = False

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises:
            DataError: a name of what lies not beside the table.
        """
        for name in self.among(table):
            def place(one: str, column: str = name) -> str:
                return self._place(column, one)

            if is_text(table.schema.field(name).type):
                table = named_files(table, name, name, place, self.media.feature)
            else:
                table = _named_lists(table, name, table.column(name).to_pylist(), place, self.media.feature)
        return table

    def among(self, table: pa.Table) -> list[str]:
        """The columns that name pictures."""
        if self._decides(table) and not self._read_on:
            self._read_on = True
            next((True for later in self.again() if not self._decides(later)), None)
        return [name for name in table.column_names if self._decided.get(name)]

    def there(self, table: pa.Table) -> bool:
        """Whether any of the first pictures that it names lies where it says."""
        return any(self._is_there(name, one) for name in self.among(table)
                   for one in (_listed_names(table, name) or ())[:_LOOK])

    def _decides(self, table: pa.Table) -> bool:
        """Whether a column of texts is left, after this table, of which nothing is known."""
        held = holds_files(table.schema) or any(are_samples(field.type) for field in table.schema)
        left, ends = False, self.media.ends
        usual = [name for name in self.media.columns if name in table.column_names]
        for name in [*usual, *(one for one in table.column_names if one not in usual)]:
            if name in self._decided or (some := _listed_names(table, name)) is None:
                continue
            if not some:
                left = True
                continue
            taken = name in usual and any(self._decided.get(one) for one in usual)
            named = ends(some[0]) if name in usual else all(ends(one) and _is_beside(one) for one in some)
            if named:
                self._below[name] = self._folder_of(some[:_LOOK])
            self._decided[name] = named and not taken and not (held and not self._is_there(name, some[0]))
        return left

    def _is_there(self, column: str, one: str) -> bool:
        return _is_beside(one) and os.path.isfile(self._place(column, one))

    def _folder_of(self, names: Sequence[str]) -> str:
        """The one folder beside the table that has any of these names, none of which lies beside it; empty where that is none
        or several."""
        own = [one.replace("\\", "/") for one in names if _is_beside(one) and "\0" not in one]
        here = self.path.parent
        if any((here / one).exists() for one in own):
            return ""
        having = [entry.name for entry in os.scandir(here) if entry.is_dir() and not entry.name.startswith(".")
                  and any(os.path.isfile(os.path.join(entry.path, one)) for one in own)]
        return having[0] if len(having) == 1 else ""

    def _place(self, column: str, one: str) -> str:
        below = _is_beside(one) and "\0" not in one and not (self.path.parent / one).exists()
        beside = self.path.parent / self._below[column] if below else self.path.parent
        return resolved(one, beside, self.path.parent, self.path)


def _listed_names(table: pa.Table, name: str) -> list[str] | None:
    """What stands in a column of text, or in one of lists of it; None where it is another."""
    kind = table.schema.field(name).type
    several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_text(kind.value_type if several else kind):
        return None
    listed = table.column(name).to_pylist()
    return [one for some in listed for one in (some if several else [some]) or () if one]


def _is_beside(name: str) -> bool:
    return ":" not in name and not name.startswith(("/", "\\")) and ".." not in re.split(r"[/\\]", name)


def _named_lists(table: pa.Table, name: str, listed: Sequence[Any], place: Callable[[str], str], one: Any) -> pa.Table:
    features = Features({**Features.from_arrow_schema(table.schema), name: List(one)})
    stored = [None if some is None else [None if one is None else {"bytes": None, "path": place(one)} for one in some]
              for some in listed]
    kind = features.arrow_schema.field(name).type
    changed = table.set_column(table.column_names.index(name), name, pa.array(stored, kind))
    return changed.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
