"""Folders of pictures with masks: a picture and the mask of the same name, however common data sets lay them out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from logging import INFO, WARNING
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Image

from stilla.data.kept import Notes, kept
from stilla.data.picture_folders import SUFFIXES, files_in
from stilla.errors import DataError, all_of, counted, quoted

PICTURES = ("images", "image", "imgs", "img", "leftImg8bit", "JPEGImages")
"""What the folder of pictures is called."""
MASKS = ("masks", "mask", "annotations", "annotation", "labels", "gtFine", "SegmentationClass")
"""What the folder of masks is called, the surest first."""
_KINDS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtFine_color", "_gtFine_instanceIds")
"""Cityscapes has several files for a picture; the first that is there holds the classes that are learnt."""
_PICTURE_END = "_leftImg8bit"
_AT_ONCE = 10_000


def is_one(folder: Path, splits: Sequence[str] = ()) -> bool:
    """Whether it holds a folder of pictures beside one of masks, or its splits do. `splits`: the names of their folders."""
    return any(_pair(place) is not None for place in (folder, *(folder / name for name in splits)))


def _pair(folder: Path) -> tuple[Path, Path] | None:
    pictures = next((folder / name for name in PICTURES if (folder / name).is_dir()), None)
    masks = next((folder / name for name in MASKS if _holds_pictures(folder / name)), None)
    return None if pictures is None or masks is None else (pictures, masks)


def _holds_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in files_in(folder))


def read(folder: Path, splits: Mapping[str, str], inner: Mapping[str, str]) -> dict[str, Dataset]:
    """A row for every picture, with `image` and `mask`; no mask where there is none of its name.

    splits: folders that hold a pair each, by split. inner: folders within both of a pair, by split. Without either it is one
    split called train.

    Raises:
        DataError: two masks for a picture, or none for any.
    """
    places = {split: (folder / name, "") for split, name in splits.items() if _pair(folder / name) is not None}
    if not places:
        places = {split: (folder, name) for split, name in inner.items()} or {"train": (folder, "")}
    loaded = {}
    for split, (root, within) in places.items():
        pair = _pair(root)
        assert pair is not None  # looked at by whoever chose these places
        rows, notes = _matched(pair[0] / within, pair[1] / within)
        if rows:
            loaded[split] = _kept(rows, notes)
    return loaded


def inner_of(folder: Path) -> list[str]:
    """The folders within the pictures' folder: they may be splits."""
    pair = _pair(folder)
    return [] if pair is None else sorted(entry.name for entry in pair[0].iterdir() if entry.is_dir())


def _matched(pictures: Path, masks: Path) -> tuple[list[tuple[str, str | None]], Notes]:
    found = {str(_key(path, pictures)): path for path in _pictures_in(pictures)}
    kinds = _kind_of(masks)
    beside: dict[str, Path] = {}
    for path in _pictures_in(masks):
        key = _key(path, masks, kinds)
        if key is None:
            continue
        if key in beside:
            raise DataError(f"{str(masks)!r}: {quoted(beside[key].name)} and {quoted(path.name)} are both masks of "
                            f"{quoted(key)}; keep one of them")
        beside[key] = path
    if found and not found.keys() & beside.keys():
        first = quoted(next(iter(found))), quoted(next(iter(beside), "nothing"))
        raise DataError(f"{str(pictures)!r}: no picture has a mask of its own name in {str(masks)!r} ({first[0]} and "
                        f"{first[1]} come first). Name them alike, or say in a metadata.csv "
                        "with `file_name` and `mask_file_name` which belong together")
    notes: Notes = [(INFO, f"{str(masks)!r}: of each picture's masks, *{kinds}.png is read")] if kinds else []
    alone = sorted(beside.keys() - found.keys())
    if alone:
        named = f"{all_of(alone[:5])}{' ...' * (len(alone) > 5)}"
        notes.append((WARNING, f"{str(masks)!r}: {counted(len(alone), 'mask', 'has')} no picture by the name ({named}): left "
                               "out"))
    rows = [(os.path.abspath(path), os.path.abspath(beside[key]) if key in beside else None)
            for key, path in found.items()]
    return rows, notes


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES] if folder.is_dir() else []


def _kind_of(masks: Path) -> str:
    """Which of Cityscapes' files; empty where masks are called as their pictures."""
    stems = [path.stem for path in _pictures_in(masks)]
    return next((kind for kind in _KINDS if any(stem.endswith(kind) for stem in stems)), "")


def _key(path: Path, root: Path, kind: str = "") -> str | None:
    """What picture and mask have in common: the folders below and the name without its end; None for another kind of mask."""
    if kind and not path.stem.endswith(kind):
        return None
    stem = path.stem.removesuffix(kind) if kind else path.stem.removesuffix(_PICTURE_END)
    return str(path.relative_to(root).parent / stem)


def _kept(rows: Sequence[tuple[str, str | None]], notes: Notes) -> Dataset:
    features = Features({"image": Image(), "mask": Image()})

    def tables(said: Notes) -> Iterator[pa.Table]:
        said += notes
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start:start + _AT_ONCE]
            columns = [pa.array([None if row[side] is None else {"bytes": None, "path": row[side]} for row in some],
                                features.arrow_schema.field(name).type) for side, name in enumerate(("image", "mask"))]
            yield pa.table(columns, schema=features.arrow_schema)

    digest = hashlib.blake2b(f"{rows}{notes}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return kept(tables, [], ["masks", digest])
