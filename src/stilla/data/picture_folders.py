"""Folders of pictures or sounds: a class for each folder of the first level, or what a metadata file says of each file."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, List

from stilla.data.kept import Notes, kept
from stilla.data.stored_files import holds_files, resolved
from stilla.errors import DataError, all_of, quoted

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Media:
    """What lies in such a folder: how its files' names end, the column that they become, of what type, and its name in words,
    of several and of one."""

    suffixes: frozenset[str]
    column: str
    feature: Any
    named: str
    one: str


PICTURES = Media(SUFFIXES, "image", Image(), "pictures", "picture")


def files_in(folder: Path) -> list[Path]:
    """All files of a folder in order, through symbolic links, and none that is hidden (of a name that begins with a dot)."""
    return sorted(_files_in(folder, frozenset()))


def _files_in(folder: Path, within: frozenset[str]) -> Iterator[Path]:
    here = os.path.realpath(folder)
    if here in within:  # a link to a folder that it lies in
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_in(Path(entry.path), within | {here})
        elif entry.is_file():
            yield Path(entry.path)


def by_class(folder: Path, splits: Mapping[str, str], media: Media = PICTURES) -> dict[str, Dataset]:
    """The pictures (or sounds) of each split with the class that their folder says: the first below the split's, as
    everywhere else.

    `splits`: the folders of the splits by their names; empty where the folder is one split.

    Raises:
        DataError: pictures that lie beside the folders of classes, or all in one folder of folders.
    """
    roots = {split: folder / name for split, name in splits.items()} or {"train": folder}
    found = {split: [path for path in files_in(root) if path.suffix.lower() in media.suffixes]
             for split, root in roots.items()}
    found = {split: paths for split, paths in found.items() if paths}
    notes: Notes = []
    if splits:
        others = sorted({path.relative_to(folder).parts[0] for path in files_in(folder)
                         if path.suffix.lower() in media.suffixes} - set(splits.values()))
        if others:
            notes.append((WARNING, f"{str(folder)!r}: {media.named} in {all_of([quoted(one) for one in others[:5]])} are "
                                   f"left out, as {all_of(sorted(splits.values()))} are the splits"))
    classes = {split: [_class(path, roots[split]) for path in paths] for split, paths in found.items()}
    names = sorted({name for several in classes.values() for name in several if name is not None})
    _refuse_unclear(folder, roots, found, classes, names, media)
    if len(names) > 1 and _deep(roots, found):
        notes.append((INFO, f"{str(folder)!r}: the folders of the first level are the classes ({all_of(names[:5])}"
                            f"{' ...' * (len(names) > 5)}); folders within them say nothing"))
    labelled = len(names) > 1
    features = Features({media.column: media.feature, **({"label": ClassLabel(names=names)} if labelled else {})})
    index = {name: position for position, name in enumerate(names)}
    loaded = {}
    for split, paths in found.items():
        labels = [index[name] for name in classes[split] if name is not None] if labelled else None
        listed = [os.path.abspath(path) for path in paths]
        loaded[split] = _kept(_listed(listed, labels, features, notes if split == next(iter(found)) else [], media.column),
                              [media.column, *listed, *names, str(labels), str(notes)])
    return loaded


def _class(path: Path, root: Path) -> str | None:
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else None


def _refuse_unclear(folder: Path, roots: Mapping[str, Path], found: Mapping[str, Sequence[Path]],
                    classes: Mapping[str, Sequence[str | None]], names: Sequence[str], media: Media) -> None:
    loose = [path for split, paths in found.items() for path, name in zip(paths, classes[split]) if name is None]
    if loose and names:
        raise DataError(f"{str(loose[0])!r}: lies beside the folders of classes ({all_of(names[:5])}): which class is it? "
                        "Move it into one of them, or away.")
    if len(names) == 1 and (inner := _deep(roots, found)):
        raise DataError(f"{str(folder)!r}: all {media.named} lie in {names[0]!r}, in folders within ({all_of(inner[:5])}): "
                        f"is it a class, or a folder around the classes? Name {str(folder / names[0])!r} itself as the data "
                        "if these are classes.")


def _deep(roots: Mapping[str, Path], found: Mapping[str, Sequence[Path]]) -> list[str]:
    """The folders within folders of classes."""
    below = [path.relative_to(roots[split]).parts for split, paths in found.items() for path in paths]
    return sorted({parts[1] for parts in below if len(parts) > 2})


def _listed(
    paths: Sequence[str], labels: Sequence[int] | None, features: Features, notes: Notes, column: str
) -> Callable[[Notes], Iterator[pa.Table]]:
    def tables(said: Notes) -> Iterator[pa.Table]:
        said += notes
        for start in range(0, len(paths), _AT_ONCE):
            some = list(paths[start:start + _AT_ONCE])
            columns = [pa.array([{"bytes": None, "path": path} for path in some], features.arrow_schema.field(column).type)]
            if labels is not None:
                columns.append(pa.array(labels[start:start + _AT_ONCE], pa.int64()))
            yield pa.table(columns, schema=features.arrow_schema)

    return tables


def _kept(tables: Callable[[Notes], Iterator[pa.Table]], said: Sequence[str]) -> Dataset:
    digest = hashlib.blake2b("\n".join(said).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return kept(tables, [], ["pictures", digest])


# --- with metadata ---


def with_metadata(
    folder: Path, splits: Mapping[str, str], read: Callable[[Path, Notes], Iterator[pa.Table]], media: Media = PICTURES
) -> dict[str, Dataset]:
    """The rows of the metadata files of each split: `file_name` (or `x_file_name`) is a picture (or sound), relative to
    the file.

    Raises:
        DataError: no such column, or a name of what is no file within the folder.
    """
    roots = {split: folder / name for split, name in splits.items()} or {"train": folder}
    loaded = {}
    for split, root in roots.items():
        files = [path for path in files_in(root) if path.name in METADATA]
        if not files:
            raise DataError(f"{str(root)!r}: holds no metadata file, as other splits do; expected {METADATA[0]}, too.")
        if len({path.suffix for path in files}) > 1:
            raise DataError(f"{str(root)!r}: holds {all_of(sorted({path.name for path in files}))}; keep one of them.")
        names = hashlib.blake2b("\n".join(map(str, files_in(root))).encode(errors="surrogateescape")).hexdigest()
        loaded[split] = kept(functools.partial(_described, files, folder, read, media), files,
                             ["metadata", media.column, names])
    return loaded


def _described(
    files: Sequence[Path], folder: Path, read: Callable[[Path, Notes], Iterator[pa.Table]], media: Media, notes: Notes
) -> Iterator[pa.Table]:
    for path in files:
        for table in read(path, notes):
            columns = [name for name in table.column_names if name == "file_name" or name.endswith("_file_name")]
            if not columns:
                raise DataError(f"{str(path)!r}: has no column `file_name` that says which {media.one} each row is about.")
            for column in columns:
                table = _named_files(table, column, path, folder, media)
            yield table


def _named_files(table: pa.Table, column: str, path: Path, folder: Path, media: Media) -> pa.Table:
    name = column.removesuffix("file_name").removesuffix("_") or media.column
    return named_files(table, column, name, lambda one: resolved(one, path.parent, folder, path), media.feature)


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


# --- tables that name pictures ---

NAMES = ("image", "images", "img", "picture", "pictures", "photo", "image_path", "img_path", "image_file", "image_name",
         "file_name", "filename", "file_path", "filepath", "file", "path")
"""What people call the column that names a picture's file, or a list of them, most telling first."""


class NamedPictures:
    """Tables of one file, whose columns of file names hold pictures from then on; columns of lists of names lists of them.

    Such columns are the first of a usual name whose first name is a picture's, and others that hold nothing but such names,
    and none that leads elsewhere (masks, a second picture). In a table that holds pictures itself, names say where these came
    from, and stay texts but where the first one's file is there. What the first table with a name in a column says of it
    holds for all of the file. `again`: the file's tables from the first on, where a column has no name yet.
    """

    def __init__(self, path: Path, again: Callable[[], Iterator[pa.Table]]) -> None:
        self.path, self.again = path, again
        self._decided: dict[str, bool] = {}
        self._read_on = False

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises:
            DataError: a name of what lies not beside the table.
        """
        for name in self.among(table):
            kind = table.schema.field(name).type
            if is_text(kind):
                table = named_files(table, name, name, self._place, PICTURES.feature)
            else:
                table = _named_lists(table, name, table.column(name).to_pylist(), self._place)
        return table

    def among(self, table: pa.Table) -> list[str]:
        """The columns that name pictures."""
        if self._decides(table) and not self._read_on:
            self._read_on = True
            next((True for later in self.again() if not self._decides(later)), None)
        return [name for name in table.column_names if self._decided.get(name)]

    def there(self, table: pa.Table) -> bool:
        """Whether the first picture that it names lies where it says."""
        firsts = [some[0] for name in self.among(table) if (some := _listed_names(table, name))]
        return any(map(self._is_there, firsts))

    def _decides(self, table: pa.Table) -> bool:
        """Whether a column of texts is left, after this table, of which nothing is known."""
        held, left = holds_files(table.schema), False
        usual = [name for name in NAMES if name in table.column_names]
        for name in [*usual, *(one for one in table.column_names if one not in usual)]:
            if name in self._decided or (some := _listed_names(table, name)) is None:
                continue
            if not some:
                left = True
                continue
            taken = name in usual and any(self._decided.get(one) for one in usual)
            named = _is_picture(some[0]) if name in usual else all(_is_picture(one) and _is_beside(one) for one in some)
            self._decided[name] = named and not taken and not (held and not self._is_there(some[0]))
        return left

    def _is_there(self, one: str) -> bool:
        return _is_beside(one) and os.path.isfile(self._place(one))

    def _place(self, one: str) -> str:
        return resolved(one, self.path.parent, self.path.parent, self.path)


def _listed_names(table: pa.Table, name: str) -> list[str] | None:
    """What stands in a column of text, or in one of lists of it; None where it is another."""
    kind = table.schema.field(name).type
    several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_text(kind.value_type if several else kind):
        return None
    listed = table.column(name).to_pylist()
    return [one for some in listed for one in (some if several else [some]) or () if one]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_beside(name: str) -> bool:
    return ":" not in name and not name.startswith(("/", "\\")) and ".." not in re.split(r"[/\\]", name)


def _named_lists(table: pa.Table, name: str, listed: Sequence[Any], place: Callable[[str], str]) -> pa.Table:
    feature = List(PICTURES.feature)
    features = Features({**Features.from_arrow_schema(table.schema), name: feature})
    stored = [None if some is None else [None if one is None else {"bytes": None, "path": place(one)} for one in some]
              for some in listed]
    kind = features.arrow_schema.field(name).type
    changed = table.set_column(table.column_names.index(name), name, pa.array(stored, kind))
    return changed.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
