"""What a name in the recipe means: a file, a folder or a Hugging Face dataset, read into splits."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
from datasets import Audio, Dataset, DatasetDict

from stilla.data import (
    box_folders,
    box_forms,
    decoded_sounds,
    mask_folders,
    object_folders,
    picture_folders,
    retrieval_folders,
    sound_folders,
)
from stilla.data import hub as online
from stilla.data.kept import kept
from stilla.data.opened import suffix
from stilla.data.readers import MEDIA, READERS, Unit, one_file, readable, shows, tables_of
from stilla.data.stored_files import may_store_files, with_own_files
from stilla.errors import DataError, all_of, did_you_mean, one_of

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
    with readable(name):
        return {split: decoded_sounds.as_files(rows) for split, rows in found.items()}


def _read(
    name: str, config: str | None, revision: str | None, document: Unit, header: Sequence[str] | None, *, hub: bool
) -> dict[str, Dataset]:
    path = Path(name).expanduser()
    if path.is_file():
        if box_forms.is_coco(path):
            with readable(str(path)):
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
    with readable(str(folder)):
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
    if len(images) > len(tables) and not (document == "picture" and any(shows(path, "picture") for path in tables)):
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
        with readable(all_of([str(path) for path in paths[:3]])):
            beside = _beside(paths) if document in MEDIA and READERS[suffixes[0]] in ("csv", "tsv", "json") else ""
            loaded[split] = kept(functools.partial(tables_of, paths, document, header), paths,
                                 [READERS[suffixes[0]], document, beside, *(header or ())])
    return loaded


def _beside(paths: Sequence[Path]) -> str:
    """The folders beside tables, and when something was last put into them: where names lead may change with it."""
    folders = sorted({entry.path: entry.stat().st_mtime_ns for parent in {path.parent for path in paths}
                      for entry in os.scandir(parent) if entry.is_dir() and not entry.name.startswith(".")}.items())
    return str(folders)


def _sound_folder(folder: Path, inside: Sequence[Path], header: Sequence[str] | None) -> dict[str, Dataset]:
    """Sounds as their layout says, else as tables do that name them, else by class."""
    splits = _split_folders(folder)
    with readable(str(folder)):
        known = sound_folders.read(folder, inside, splits, _split_in,
                                   lambda path, notes: one_file(path, "paragraph", notes, header))
    if known is not None:
        return known
    tables = [path for path in inside if _holds_rows(path) and suffix(path) != ".txt"]
    if naming := [path for path in tables if shows(path, "sound")]:
        return _files(_by_split(folder, naming), "sound", header)
    with readable(str(folder)):
        return picture_folders.by_class(folder, splits, sound_folders.SOUNDS, tables)


def _image_folder(folder: Path) -> dict[str, Dataset]:
    """Pictures by class, `[split/]class/name.png`, or with a `metadata.csv`; labels by folder name.

    Splits are only what the first level of folders says: a picture called `cat/test_3.png` is none of the test split.
    """
    splits = _split_folders(folder)
    described = any(path.name in picture_folders.METADATA for path in picture_folders.files_in(folder))
    with readable(str(folder)):
        if described:
            return picture_folders.with_metadata(folder, splits, lambda path, notes: one_file(path, "paragraph", notes))
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
    with readable(str(folder)):
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
