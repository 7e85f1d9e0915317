"""YOLO's folders: pictures, a file of lines for each, and what says which are of which split."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import PIL.Image
from datasets import Dataset

from stilla.data import box_forms
from stilla.data.box_forms import Pictured, SplitOf, kept_rows
from stilla.data.kept import Notes
from stilla.data.picture_folders import SUFFIXES, files_in
from stilla.data.stored_files import resolved
from stilla.errors import DataError, RecipeError, all_of, quoted
from stilla.recipe.yaml import load as load_yaml

logger = logging.getLogger(__name__)

_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height
_ORIENTATION = 0x0112
_LINE = re.compile(r"\d+(\s+[-+.\deE]+){4}\s*")
_SPLITS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
"""What a data.yaml calls them."""
_LISTS = ("classes.txt", "labels/classes.txt", "obj.names", "_darknet.labels")
"""Files of names, a line each."""


def is_one(folder: Path, pictures: Sequence[Path]) -> bool:
    """Whether files of lines lie in `labels`, in the place of `images`, or beside the pictures."""
    places = {path.parent: path for path in pictures}
    if any((found := _labels_of(folder, place)) is not None and any(found.glob("*.txt")) for place in places):
        return True
    beside = [path.with_suffix(".txt") for path in pictures if path.with_suffix(".txt").is_file()]
    lines = [line for path in beside[:20] for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def read(folder: Path, split_of: SplitOf) -> dict[str, Dataset]:
    """Splits are those that a data.yaml names, as far as they are there; of which it says nothing, those that folders are
    called by.

    Raises:
        DataError: lines or names that cannot be read.
    """
    inside = files_in(folder)
    pictures = [path for path in inside if path.suffix.lower() in SUFFIXES]
    said = _said(folder)
    names = _names(folder, said)
    named = _named(folder, said, pictures)
    taken = {one for some in named.values() for one in some}
    meant = {path.parent for path in pictures
             if _labels_of(folder, path.parent) is not None or path.with_suffix(".txt").is_file()}
    by_split, lost = {**named}, 0
    for picture in pictures:
        parts = picture.relative_to(folder).parts[-2::-1]
        split = next((one for part in parts if (one := split_of(part))), None if named else "train")
        if picture in taken:
            continue
        said_of = split is not None and named and any(said.get(key) for key in _SPLITS[split])
        if split is None or said_of or picture.parent not in meant:
            lost += 1
        else:
            by_split.setdefault(split, []).append(picture)
    if lost:
        logger.warning("%r: %d pictures are in no split: left out, as they lie neither where a data.yaml says, nor in "
                       "folders with labels", str(folder), lost)
    for split, some in [*by_split.items()]:
        if not any(_label(folder, one).is_file() for one in some):
            logger.warning("%r: none of the %d pictures of %s has a file of labels: left out, as nothing says what is in "
                           "them", str(folder), len(some), split)
            del by_split[split]
    files = [path for path in inside if path.suffix in (".txt", ".yaml", ".yml", ".names", ".labels")]
    return {split: kept_rows(functools.partial(_rows, paths, folder, names), [folder, "yolo", *paths],
                             [*files, *(path for path in paths if path.is_file())])
            for split, paths in by_split.items()}


def _rows(paths: Sequence[Path], folder: Path, names: Mapping[int, str], notes: Notes) -> Iterator[Pictured]:
    without = 0
    for path in paths:
        file = _label(folder, path)
        without += not file.is_file()
        yield Pictured(os.path.abspath(path), box_forms.yolo(file, names, _size(path)) if file.is_file() else [])
    if without:
        notes.append((WARNING, f"{str(folder)!r}: {without} of {len(paths)} pictures have no file of labels: read as "
                               "pictures without objects"))


def _label(folder: Path, picture: Path) -> Path:
    labels = _labels_of(folder, picture.parent)
    beside = picture.with_suffix(".txt")
    return beside if labels is None or beside.is_file() else labels / beside.name


def _labels_of(folder: Path, place: Path) -> Path | None:
    """Where the labels of the pictures of a folder lie, unless beside them: `labels` in the place of `images`."""
    parts = place.relative_to(folder).parts if place.is_relative_to(folder) else ()
    if "images" not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index("images")
    return folder.joinpath(*parts[:at], "labels", *parts[at + 1 :])


def _size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture; of what cannot be read any, as the picture is refused later on."""
    try:
        with PIL.Image.open(path) as picture:
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return (picture.height, picture.width) if turned else (picture.width, picture.height)
    except Exception:  # whatever PIL's readers raise of broken headers
        return 1, 1


# --- what is said of a folder ---


def _said(folder: Path) -> dict[str, Any]:
    """What its data.yaml holds, or another one with names; nothing where there is none.

    Raises:
        DataError: a file that is no YAML.
    """
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda path: (path.stem != "data", path.name))
    for path in files:
        try:
            said: Any = load_yaml(path.read_text(encoding="utf-8"), str(path))
        except RecipeError as error:
            raise DataError(str(error)) from None
        if isinstance(said, dict) and isinstance(said.get("names"), list | dict):
            return said
    return {}


def _names(folder: Path, said: Mapping[str, Any]) -> dict[int, str]:
    """By number, of a `.yaml` with `names` (a list, or by number), or of a list of them.

    Raises:
        DataError: neither is there, or names that are not numbered.
    """
    names = said.get("names")
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict):
        if odd := [number for number in names if not str(number).isdecimal()]:
            raise DataError(f"{str(folder)!r}: `names` has {quoted(str(odd[0]))} where a class's number is expected: "
                            "{0: cat, 1: dog}, or a list of names.")
        return {int(number): str(name) for number, name in names.items()}
    for name in _LISTS:
        if (listed := folder / name).is_file():
            lines = enumerate(listed.read_text(encoding="utf-8").splitlines())  # an empty line has a number too
            return {number: line.strip() for number, line in lines if line.strip()}
    raise DataError(f"{str(folder)!r}: nothing says what its classes are called; expected a data.yaml with `names`, or a "
                    "classes.txt.")


def _named(folder: Path, said: Mapping[str, Any], pictures: Sequence[Path]) -> dict[str, list[Path]]:
    """The pictures of each split that a data.yaml names; none where it names nothing that is there, as where it was written
    for another place."""
    found: dict[str, list[Path]] = {}
    by_place = {os.path.realpath(path): path for path in pictures}
    for split, keys in _SPLITS.items():
        named = next((said[key] for key in keys if said.get(key)), None)
        places = [named] if isinstance(named, str) else named if isinstance(named, list) else []
        some = [*dict.fromkeys(path for one in places for path in _under(folder, said, str(one), by_place))]
        if places and not some:
            logger.warning("%r: its data.yaml names %s as %s, and no pictures are there", str(folder),
                           all_of([quoted(str(one)) for one in places[:3]]), split)
        if some and some in found.values():
            logger.warning("%r: its data.yaml names the same pictures as %s that it names for training: they are that alone",
                           str(folder), split)
        elif some:
            found[split] = some
    return found


def _under(folder: Path, said: Mapping[str, Any], name: str, pictures: Mapping[str, Path]) -> list[Path]:
    """The pictures below a folder, or of a list of files. pictures: all that there are, by where they lie."""
    whole = os.path.realpath(folder)
    for one in (str(said.get("path") or ""), "", None):
        # some name the folder's neighbour, which is meant to be the folder
        place = os.path.realpath(folder / (re.sub(r"^(\.\./)+", "", name) if one is None else Path(one) / name))
        if os.path.commonpath([place, whole]) != whole:
            continue
        if os.path.isdir(place):
            return [path for where, path in pictures.items() if Path(where).is_relative_to(place)]
        if os.path.isfile(place) and place.endswith(".txt"):
            lines = [line.strip() for line in Path(place).read_text(encoding="utf-8").splitlines() if line.strip()]
            files = [_listed(line, Path(place), folder) for line in lines]
            return [pictures.get(file, Path(file)) for file in files]
    return []


def _listed(line: str, file: Path, folder: Path) -> str:
    beside = next((place for place in (file.parent, folder) if (place / line).is_file()), folder)
    return resolved(line, beside, folder, file)
