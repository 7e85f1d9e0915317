"""Folders of pictures with boxes: COCO's, VOC's and YOLO's layouts, found by what lies in them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
from datasets import Dataset

from stilla.data import box_forms, panoptic_form
from stilla.data.box_forms import Pictured
from stilla.data.kept import Notes, kept
from stilla.data.picture_folders import SUFFIXES, files_in
from stilla.data.stored_files import resolved
from stilla.errors import DataError, RecipeError, all_of, one_of, quoted
from stilla.recipe.yaml import load as load_yaml

SplitOf = Callable[[str], str | None]
"""The split that a name says: train, validation or test."""
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height
_ORIENTATION = 0x0112


def layout(folder: Path) -> str | None:
    """`coco`, `voc` or `yolo`; None where there are no boxes."""
    inside = files_in(folder)
    pictures = {path.parent for path in inside if path.suffix.lower() in SUFFIXES}
    if not pictures:
        return None
    if any(path.parent.name == "Annotations" or path.parent in pictures for path in inside if path.suffix.lower() == ".xml"):
        return "voc"
    if any(box_forms.is_coco(path) for path in inside):
        return "coco"
    if any(_labels_of(folder, place) is not None for place in pictures):
        return "yolo"
    return None


def read(folder: Path, kind: str, split_of: SplitOf) -> dict[str, Dataset]:
    """Every split of a folder whose layout is `kind`.

    Raises:
        DataError: what cannot be read, pictures that are not there, or two files for one split.
    """
    return {"coco": _coco, "voc": _voc, "yolo": _yolo}[kind](folder, split_of)


def coco_file(path: Path) -> Dataset:
    """One file of COCO's, boxes and outlines or panoptic, whose pictures lie beside it, in `images` there, or, where the file
    lies in `annotations`, beside that; PNGs of segments in a folder of the file's own name.

    Raises:
        DataError: as for `box_forms.coco` and `panoptic_form.rows`; pictures that are not there.
    """
    return kept(functools.partial(_coco_tables, path), [path], ["coco boxes and outlines"])


# --- COCO ---


def _coco(folder: Path, split_of: SplitOf) -> dict[str, Dataset]:
    files = [path for path in files_in(folder) if box_forms.is_coco(path)]
    found: dict[str, list[Path]] = {}
    for path in files:
        parts = [path.stem, *path.relative_to(folder).parts[-2::-1]]
        found.setdefault(next((split for part in parts if (split := split_of(part))), "train"), []).append(path)
    for split, several in found.items():
        if len(several) > 1:
            raise DataError(f"{str(folder)!r}: {all_of([path.name for path in several[:5]])} are all of {split}; name the "
                            "file that is meant in the recipe (data.train, data.validation, data.test).")
    return {split: coco_file(one) for split, (one,) in found.items()}


def _coco_tables(path: Path, notes: Notes) -> Iterator[pa.Table]:
    whole, where = json.loads(path.read_text(encoding="utf-8")), f"{str(path)!r}"
    base = path.parent.parent if path.parent.name == "annotations" else path.parent
    split = path.stem.split("_")[-1]
    places = [path.parent, *(base / one for one in ("", "images", split, f"images/{split}"))]
    if panoptic_form.is_one(whole):
        rows = panoptic_form.rows(whole, where)
        root = _root(path, [name for name, _, _ in rows], places)
        pngs = _root(path, [png for _, png, _ in rows if png is not None],
                     [path.with_suffix(""), base / path.stem, *(base / one for one in ("panoptic", "masks")), path.parent])
        yield from panoptic_form.tables(
            rows, lambda name: resolved(name, root, base, path), lambda png: resolved(png, pngs, base, path))
        return
    names, objects, outlines = box_forms.coco(whole, where)
    root = _root(path, names, places)
    yield from box_forms.tables(Pictured(resolved(name, root, base, path), some, lines)
                                for name, some, lines in zip(names, objects, outlines))


def _root(path: Path, names: Sequence[str], places: Sequence[Path]) -> Path:
    """The first place where one of these files lies: some may be lost, not all."""
    root = next((place for name in names for place in places if (place / name).is_file()), None)
    if root is None:
        listed = one_of([str(place) for place in dict.fromkeys(places)])
        raise DataError(f"{str(path)!r}: names {quoted(names[0]) if names else 'nothing'}, which is no picture in {listed}. "
                        "Put the pictures there.")
    return root


# --- VOC ---


def _voc(folder: Path, split_of: SplitOf) -> dict[str, Dataset]:
    """`Annotations/`, `JPEGImages/` and lists in `ImageSets/Main/`; or annotations beside pictures, by folder."""
    annotations = [path for path in files_in(folder) if path.suffix.lower() == ".xml"]
    lists = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
    by_split: dict[str, list[Path]] = {}
    if lists:
        stems = {path.stem: path for path in annotations}
        for path in lists:
            named = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            split = {"train": "train", "val": "validation", "test": "test"}.get(path.stem)
            if split is None:  # lists of single classes, and trainval, which is both
                continue
            lost = [one for one in named if one not in stems]
            if lost:
                raise DataError(f"{str(path)!r}: {len(lost)} of {len(named)} names have no annotation in {str(folder)!r}: "
                                f"{all_of(lost[:5])}.")
            by_split[split] = [stems[one] for one in named]
    if not by_split:
        for path in annotations:
            parts = path.relative_to(folder).parts[-2::-1]
            by_split.setdefault(next((one for part in parts if (one := split_of(part))), "train"), []).append(path)
    pictures = sorted(str(path) for path in files_in(folder) if path.suffix.lower() in SUFFIXES)
    return {split: _kept(functools.partial(_voc_rows, paths, folder), [folder, "voc", *paths, *pictures], paths)
            for split, paths in by_split.items() if paths}


def _voc_rows(paths: Sequence[Path], folder: Path, notes: Notes) -> Iterator[Pictured]:
    stems = {picture.with_suffix("").name: picture for picture in files_in(folder) if picture.suffix.lower() in SUFFIXES}
    for path in paths:
        name, objects = box_forms.voc(path)
        beside = next((path.with_suffix(ending) for ending in sorted(SUFFIXES) if path.with_suffix(ending).is_file()), None)
        picture = beside or stems.get(path.stem) or stems.get(Path(name).stem)
        # one that is lost is where it would lie: the row is refused or left out like any that cannot be read
        named = name or f"{path.stem}.jpg" if picture is None else str(picture.relative_to(folder))
        yield Pictured(resolved(named, folder, folder, path), objects)


# --- YOLO ---


def _labels_of(folder: Path, place: Path) -> Path | None:
    """Where the labels of the pictures of a folder lie: `labels` in the place of `images`, or the folder itself."""
    parts = list(place.relative_to(folder).parts)
    if "images" in parts:
        at = len(parts) - 1 - parts[::-1].index("images")
        swapped = folder.joinpath(*parts[:at], "labels", *parts[at + 1 :])
        if swapped.is_dir() and any(swapped.glob("*.txt")):
            return swapped
    return None


def _yolo(folder: Path, split_of: SplitOf) -> dict[str, Dataset]:
    names, notes = _names(folder), [path for path in files_in(folder) if path.suffix in (".txt", ".yaml", ".yml")]
    by_split: dict[str, list[Path]] = {}
    for picture in files_in(folder):
        if picture.suffix.lower() in SUFFIXES and _labels_of(folder, picture.parent) is not None:
            parts = picture.relative_to(folder).parts[-2::-1]
            by_split.setdefault(next((one for part in parts if (one := split_of(part))), "train"), []).append(picture)
    return {split: _kept(functools.partial(_yolo_rows, paths, folder, names), [folder, "yolo", *paths], notes)
            for split, paths in by_split.items()}


def _yolo_rows(paths: Sequence[Path], folder: Path, names: Mapping[int, str], notes: Notes) -> Iterator[Pictured]:
    without = 0
    for path in paths:
        labels = _labels_of(folder, path.parent)
        assert labels is not None  # as `_yolo` has chosen them
        file = labels / f"{path.stem}.txt"
        without += not file.is_file()
        yield Pictured(os.path.abspath(path), box_forms.yolo(file, names, _size(path)) if file.is_file() else [])
    if without:
        notes.append((WARNING, f"{str(folder)!r}: {without} of {len(paths)} pictures have no file of labels: read as "
                               "pictures without objects"))


def _size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture; of what cannot be read any, as the picture is refused later on."""
    try:
        with PIL.Image.open(path) as picture:
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return (picture.height, picture.width) if turned else (picture.width, picture.height)
    except (OSError, SyntaxError, ValueError):
        return 1, 1


def _names(folder: Path) -> dict[int, str]:
    """By number, of a `.yaml` with `names` (a list, or by number), or of `classes.txt`.

    Raises:
        DataError: neither is there.
    """
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            said: Any = load_yaml(path.read_text(encoding="utf-8"), str(path))
        except RecipeError as error:
            raise DataError(str(error)) from None
        names = said.get("names") if isinstance(said, dict) else None
        if isinstance(names, list):
            return {number: str(name) for number, name in enumerate(names)}
        if isinstance(names, dict):
            return {int(number): str(name) for number, name in names.items()}
    listed = folder / "classes.txt"
    if listed.is_file():
        return dict(enumerate(line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()))
    raise DataError(f"{str(folder)!r}: nothing says what its classes are called; expected a data.yaml with `names`, or a "
                    "classes.txt.")


def _kept(rows: Callable[[Notes], Iterator[Pictured]], said: Sequence[Any], files: Sequence[Path]) -> Dataset:
    digest = hashlib.blake2b("\n".join(map(str, said)).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return kept(lambda notes: box_forms.tables(rows(notes)), files, ["boxes", digest])
