"""What a name in the recipe means: a file, a folder or a Hugging Face dataset, read into splits."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import datasets
import pyarrow as pa
from datasets import Audio, Dataset, DatasetDict

from stilla.data import (
    atomic,
    box_folders,
    box_forms,
    columnar,
    decoded_sounds,
    delimited,
    headless,
    in_columns,
    json_rows,
    mask_folders,
    object_folders,
    picture_folders,
    plain_text,
    retrieval_folders,
    sound_folders,
)
from stilla.data import hub as online
from stilla.data.kept import Notes, kept
from stilla.data.named_files import Media, NamedFiles
from stilla.data.opened import suffix
from stilla.data.plain_text import Document
from stilla.data.stored_files import holds_files, may_store_files, with_own_files
from stilla.errors import DataError, all_of, brief, did_you_mean, one_of, quoted

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
_MEDIA: Mapping[str, Media] = {"picture": picture_folders.PICTURES, "sound": sound_folders.SOUNDS}
_AT_ONCE = 1000
ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}


def read(
    name: str, *, config: str | None = None, revision: str | None = None, document: Unit = "paragraph",
    header: Sequence[str] | None = None, hub: bool = True,
) -> dict[str, Dataset]:
    """The splits behind a name, called train, validation and test where their own names say so.

    A single file, or a folder whose names say nothing, is one split called train. Pictures stay undecoded. Plain text
    has one column, `text`, and a row for each `document` of it; where that is `columns`, it is read as CoNLL's files are.
    Where it is `sound`, names of sounds in tables are read as sounds, samples with their rate as files of them, and folders
    in any of the ways that speech comes in. header: how the columns of CSV and TSV are called whose first row is an example,
    and those of files that name none.

    Raises:
        DataError: no such file, folder or dataset; it cannot be read, is empty or leaves open what is what.
    """
    found = {split: _undecoded(rows) for split, rows in _read(name, config, revision, document, header, hub=hub).items()}
    if document != "sound":
        return found
    with _readable(name):
        return {split: decoded_sounds.as_files(rows) for split, rows in found.items()}


def _read(
    name: str, config: str | None, revision: str | None, document: Unit, header: Sequence[str] | None, *, hub: bool
) -> dict[str, Dataset]:
    path = Path(name).expanduser()
    if path.is_file():
        if box_forms.is_coco(path):
            with _readable(str(path)):
                return {"train": box_folders.coco_file(path)}
        return _files({"train": [path]}, document, header)
    if path.is_dir():
        return _folder(path, document, header)
    if hub and not _means_a_path(name):
        return _named(online.read(name, config, revision))
    raise DataError(f"{name!r}: no such file or folder.{near(path)}")


def _undecoded(split: Dataset) -> Dataset:
    """Sounds as they are stored: `datasets` would decode them with a package of its own whenever a row is looked at."""
    decoded = [name for name, feature in split.features.items() if isinstance(feature, Audio) and feature.decode]
    for name in decoded:
        split = split.cast_column(name, Audio(decode=False))
    return split


def near(path: Path, usable: Callable[[Path], bool] = lambda entry: suffix(entry) in READERS) -> str:
    """What lies beside a missing file: the one of nearly its name, or all that are usable."""
    folder = path.parent
    if not folder.is_dir():
        return f" The folder {str(folder)!r} does not exist either."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    hint = did_you_mean(path.name, names)
    if hint:
        return hint
    there = [name for name in names if usable(folder / name)]
    return f" {str(folder)!r} holds {all_of(there[:8])}." if there else ""


def near_models(path: Path) -> str:
    """What lies beside the missing folder of a model."""
    return near(path, lambda entry: (entry / "config.json").is_file())


def _means_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~", os.sep)) or suffix(Path(name)) in READERS or name.count("/") > 1


def _folder(folder: Path, document: Unit, header: Sequence[str] | None) -> dict[str, Dataset]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved(folder)
    if retrieval_folders.is_one(folder):
        return retrieval_folders.read(folder)
    with _readable(str(folder)):
        if (layout := box_folders.layout(folder)) is not None:
            return box_folders.read(folder, layout, _split_in)
        inside = picture_folders.files_in(folder)
    if document == "sound" and any(path.suffix.lower() in sound_folders.SUFFIXES for path in inside):
        return _sound_folder(folder, inside, header)
    images = [path for path in inside if path.suffix.lower() in picture_folders.SUFFIXES]
    tables = [path for path in inside if _holds_rows(path) and path.stem != "metadata"]
    # beside tables, plain text is a note to the reader
    tables = [path for path in tables if suffix(path) != ".txt"] or tables
    # beside events, tables of items and users say what those are
    tables = [path for path in tables if suffix(path) not in (".item", ".user")] or tables
    if len(images) > len(tables) and not (document == "picture" and any(_shows(path, "picture") for path in tables)):
        return _image_folder(folder)
    if not tables:
        raise DataError(
            f"{str(folder)!r}: the folder holds no data; expected {one_of(sorted(READERS))} files, images, "
            "or what `datasets.save_to_disk` wrote."
        )
    return _files(_by_split(folder, tables), document, header)


def _holds_rows(path: Path) -> bool:
    """By its suffix; what others call by one that is nobody's has to be named itself."""
    return READERS.get(suffix(path), "headless") != "headless"


def _by_split(folder: Path, tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by the split that their names, or their folders', say; all are train if none says anything."""
    found: dict[str, list[Path]] = {}
    silent = []
    for path in tables:
        parts = [path.stem, *path.relative_to(folder).parts[-2::-1]]
        said = next((split for part in parts if (split := _split_in(part))), None)
        found.setdefault(said, []).append(path) if said else silent.append(path)
    if not found:
        return {"train": silent}
    if silent:
        raise DataError(
            f"{str(folder)!r}: which split is {one_of([path.name for path in silent[:5]])}? Other files are "
            "named train, validation or test. Rename it, move it away, or name the files in the recipe "
            "(data.train, data.validation, data.test)."
        )
    return found


def _split_in(name: str) -> str | None:
    """`train-00000-of-00002`, `my_dev`: the split that a name contains as a word."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    said = [split for split, aliases in ALIASES.items() if words & set(aliases)]
    return said[0] if len(said) == 1 else None


def _files(
    by_split: Mapping[str, Sequence[Path]], document: Unit, header: Sequence[str] | None
) -> dict[str, Dataset]:
    """Each split's files: read once into the cache of `datasets`, memory-mapped from then on."""
    loaded = {}
    for split, paths in by_split.items():
        suffixes = sorted({suffix(path) for path in paths})
        if len(suffixes) > 1:
            raise DataError(
                f"{str(paths[0].parent)!r}: {split} comes as {all_of(suffixes)} at "
                "once; keep one of them, or name the file in the recipe."
            )
        if suffixes[0] not in READERS:
            raise DataError(
                f"{str(paths[0])!r}: got the suffix {suffixes[0]!r}; expected {one_of(sorted(READERS))}, or "
                "a folder."
            )
        for path in paths:
            if path.stat().st_size == 0:
                raise DataError(f"{str(path)!r}: the file is empty.")
        with _readable(all_of([str(path) for path in paths[:3]])):
            beside = _beside(paths) if document in _MEDIA and READERS[suffixes[0]] in ("csv", "tsv", "json") else ""
            loaded[split] = kept(functools.partial(_tables, paths, document, header), paths,
                                 [READERS[suffixes[0]], document, beside, *(header or ())])
    return loaded


def _beside(paths: Sequence[Path]) -> str:
    """The folders beside tables, and when something was last put into them: where names lead may change with it."""
    folders = sorted({entry.path: entry.stat().st_mtime_ns for parent in {path.parent for path in paths}
                      for entry in os.scandir(parent) if entry.is_dir() and not entry.name.startswith(".")}.items())
    return str(folders)


def _tables(
    paths: Sequence[Path], document: Unit, header: Sequence[str] | None, notes: Notes
) -> Iterator[pa.Table]:
    """The rows of files of one kind, one after the other; tables of named columns have the same."""
    columns: frozenset[str] | None = None
    for path in paths:
        kind = READERS[suffix(path)]
        for table in _one_file(path, document, notes, header):
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


def _one_file(
    path: Path, document: Unit, notes: Notes, header: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    read = _reader(READERS[suffix(path)], header)
    named = _named_in(path, document, lambda: read(path, document, []))
    for table in read(path, document, notes):
        own = with_own_files(table, path)
        yield own if named is None else named(own)


def _named_in(
    path: Path, document: Unit, again: Callable[[], Iterator[pa.Table]] = lambda: iter(())
) -> NamedFiles | None:
    """What makes pictures or sounds of the names in a file, of tasks whose rows are some."""
    media = _MEDIA.get(document)
    return None if media is None else NamedFiles(path, media, again)


def _shows(path: Path, document: Literal["picture", "sound"]) -> bool:
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


def _sound_folder(folder: Path, inside: Sequence[Path], header: Sequence[str] | None) -> dict[str, Dataset]:
    """Sounds as their layout says, else as tables do that name them, else by class."""
    splits = _split_folders(folder)
    with _readable(str(folder)):
        known = sound_folders.read(folder, inside, splits, _split_in,
                                   lambda path, notes: _one_file(path, "paragraph", notes, header))
    if known is not None:
        return known
    tables = [path for path in inside if _holds_rows(path) and suffix(path) != ".txt"]
    if naming := [path for path in tables if _shows(path, "sound")]:
        return _files(_by_split(folder, naming), "sound", header)
    with _readable(str(folder)):
        return picture_folders.by_class(folder, splits, sound_folders.SOUNDS, tables)


def _image_folder(folder: Path) -> dict[str, Dataset]:
    """Pictures by class, `[split/]class/name.png`, or with a `metadata.csv`; labels by folder name.

    Splits are only what the first level of folders says: a picture called `cat/test_3.png` is none of the test split.
    """
    splits = _split_folders(folder)
    described = any(path.name in picture_folders.METADATA for path in picture_folders.files_in(folder))
    with _readable(str(folder)):
        if described:
            return picture_folders.with_metadata(folder, splits, lambda path, notes: _one_file(path, "paragraph", notes))
        if mask_folders.is_one(folder, list(splits.values())):
            inner = _whole_names({name: _split_in(name) for name in mask_folders.inner_of(folder)})
            return mask_folders.read(folder, splits, inner)
        if object_folders.is_one(folder, list(splits.values())):
            return object_folders.read(folder, splits)
        return picture_folders.by_class(folder, splits)


def _split_folders(folder: Path) -> dict[str, str]:
    """Folders of the first level that are called like a split, by split."""
    return _whole_names({entry.name: _split_in(entry.name) for entry in sorted(folder.iterdir()) if entry.is_dir()})


def _whole_names(said: Mapping[str, str | None]) -> dict[str, str]:
    """Folders by their split, where their whole name says it."""
    return {split: name for name, split in said.items() if split and name.lower() in ALIASES[split]}


def _saved(folder: Path) -> dict[str, Dataset]:
    with _readable(str(folder)):
        loaded = datasets.load_from_disk(str(folder))
        splits = dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
        for split in splits.values():
            names = [field.name for field in split.features.arrow_schema if may_store_files(field.type)]
            rows = split.select_columns(names).with_format("arrow")
            for start in range(0, len(split) if names else 0, _AT_ONCE):
                with_own_files(rows[start : start + _AT_ONCE], folder / "state.json", absolute=True)
    return _named(splits)


def _named(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Splits under the three names where theirs mean one of them; the others keep their own."""
    named = dict(splits)
    for split, aliases in ALIASES.items():
        meant = next((alias for alias in aliases if alias in named), None)
        if meant and meant != split:
            named[split] = named.pop(meant)
    return named


@contextmanager
def _readable(where: str) -> Iterator[None]:
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
