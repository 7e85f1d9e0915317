"""Folders of pictures with a mask for each of their objects: `x/images/x.png` and `x/masks/*.png`, as the 2018 Data Science
Bowl has its cell nuclei."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Image, List

from stilla.data.kept import Notes, kept
from stilla.data.mask_folders import MASKS, PICTURES
from stilla.data.picture_folders import SUFFIXES, files_in
from stilla.errors import DataError, all_of, quoted

_FEATURES = Features({"image": Image(), "masks": List(Image())})
_AT_ONCE = 1_000


def is_one(folder: Path, splits: Sequence[str] = ()) -> bool:
    """Whether folders in it, or in those of its splits, hold one picture each beside masks. `splits`: their names."""
    return any(_first(place) for place in ([folder / name for name in splits] or [folder]))


def _first(place: Path) -> bool:
    """Looks at the first folder only: there are thousands."""
    inside = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    pair = _pair(inside[0]) if inside else None
    return pair is not None and len(_pictures_in(pair[0])) == 1


def _pair(folder: Path) -> tuple[Path, Path] | None:
    pictures, masks = (next((folder / name for name in names if (folder / name).is_dir()), None)
                       for names in (PICTURES, MASKS))
    return None if pictures is None or masks is None else (pictures, masks)


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES]


def read(folder: Path, splits: Mapping[str, str]) -> dict[str, Dataset]:
    """A row for every picture, with `image` and `masks`, a picture for each of its objects. splits: folders by split; none:
    it is one, called train.

    Raises:
        DataError: a folder that does not hold one picture; masks in none.
    """
    places = {split: folder / name for split, name in splits.items()} or {"train": folder}
    return {split: _kept(_rows(place)) for split, place in places.items()}


def _rows(place: Path) -> list[tuple[str, list[str]]]:
    found, odd = list[tuple[str, list[str]]](), list[str]()
    for entry in sorted(place.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        pair = _pair(entry)
        pictures = [] if pair is None else _pictures_in(pair[0])
        if pair is None or len(pictures) != 1:
            odd.append(entry.name)
            continue
        found.append((os.path.abspath(pictures[0]), [os.path.abspath(path) for path in _pictures_in(pair[1])]))
    if odd:
        raise DataError(f"{str(place)!r}: {len(odd)} of {len(found) + len(odd)} folders do not hold one picture in "
                        f"{quoted(PICTURES[0])} beside {quoted(MASKS[0])}: {all_of([quoted(one) for one in odd[:5]])}"
                        f"{' ...' * (len(odd) > 5)}. Move them away.")
    return found


def _kept(rows: Sequence[tuple[str, list[str]]]) -> Dataset:
    def tables(said: Notes) -> Iterator[pa.Table]:
        schema = _FEATURES.arrow_schema
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start:start + _AT_ONCE]
            columns = ([_stored(picture) for picture, _ in some], [[_stored(mask) for mask in masks] for _, masks in some])
            yield pa.table([pa.array(column, one.type) for column, one in zip(columns, schema)], schema=schema)

    digest = hashlib.blake2b(repr(rows).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return kept(tables, [], ["objects", digest])


def _stored(path: str) -> dict[str, str | None]:
    return {"bytes": None, "path": path}
