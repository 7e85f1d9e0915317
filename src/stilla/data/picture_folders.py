"""Folders of pictures or sounds: a class for each folder of the first level, or what a metadata file says of each file."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import INFO, WARNING
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image

from stilla.data.kept import Notes, kept
from stilla.data.named_files import Media, NamedFiles, named_files
from stilla.data.stored_files import resolved
from stilla.errors import DataError, all_of, quoted

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_AT_ONCE = 10_000


PICTURES = Media(
    SUFFIXES, "image", Image(), "pictures", "picture",
    ("image", "images", "img", "picture", "pictures", "photo", "image_path", "img_path", "image_file", "image_name",
     "file_name", "filename", "file_path", "filepath", "file", "path"))


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


def by_class(
    folder: Path, splits: Mapping[str, str], media: Media = PICTURES, beside: Sequence[Path] = ()
) -> dict[str, Dataset]:
    """The pictures (or sounds) of each split with the class that their folder says: the first below the split's, as
    everywhere else.

    `splits`: the folders of the splits by their names; empty where the folder is one split. `beside`: tables that lie there
    and name none of them.

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
    if beside and len(names) < 2:  # where folders say nothing, someone may have thought that a table would
        several = len(beside) > 1
        notes.append((WARNING, f"{str(folder)!r}: {all_of([path.name for path in beside[:5]])} {'are' if several else 'is'} "
                               f"not read: {'they name' if several else 'it names'} no {media.named} that lie in the folder, "
                               "relative to the table"))
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
    the file; without such a column what any table would be read for.

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
        others = NamedFiles(path, media, functools.partial(read, path, []))
        for table in read(path, notes):
            columns = [name for name in table.column_names if name == "file_name" or name.endswith("_file_name")]
            if not columns and others.among(table):
                table = others(table)
            elif not columns:
                raise DataError(f"{str(path)!r}: has no column `file_name` that says which {media.one} each row is about.")
            for column in columns:
                table = _named_files(table, column, path, folder, media)
            yield table


def _named_files(table: pa.Table, column: str, path: Path, folder: Path, media: Media) -> pa.Table:
    name = column.removesuffix("file_name").removesuffix("_") or media.column
    return named_files(table, column, name, lambda one: resolved(one, path.parent, folder, path), media.feature)
