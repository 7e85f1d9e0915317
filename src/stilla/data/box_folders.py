"""Folders of pictures with boxes: COCO's, VOC's and YOLO's layouts, found by what lies in them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from logging import WARNING
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from stilla.data import box_forms, panoptic_form, yolo_folders
from stilla.data.box_forms import Pictured, SplitOf, kept_rows
from stilla.data.kept import Notes, kept
from stilla.data.picture_folders import SUFFIXES, files_in
from stilla.data.stored_files import resolved
from stilla.errors import DataError, all_of, one_of, quoted

_ANNOTATIONS = ("annotations", "annotation")
_PICTURES = ("jpegimages", "images")
"""What folders of VOC are called, in small letters."""


def layout(folder: Path) -> str | None:
    """`coco`, `voc` or `yolo`; None where there are no boxes."""
    inside = files_in(folder)
    pictures = [path for path in inside if path.suffix.lower() in SUFFIXES]
    if not pictures:
        return None
    places = {path.parent for path in pictures}
    if any(path.parent in places or _within(folder, path, _ANNOTATIONS) is not None
           for path in inside if path.suffix.lower() == ".xml" and box_forms.is_voc(path)):
        return "voc"
    if any(box_forms.is_coco(path) for path in inside):
        return "coco"
    if yolo_folders.is_one(folder, pictures):
        return "yolo"
    return None


def read(folder: Path, kind: str, split_of: SplitOf) -> dict[str, Dataset]:
    """Every split of a folder whose layout is `kind`.

    Raises:
        DataError: what cannot be read, pictures that are not there, or two files for one split.
    """
    return {"coco": _coco, "voc": _voc, "yolo": yolo_folders.read}[kind](folder, split_of)


def coco_file(path: Path) -> Dataset:
    """One file of COCO's, boxes and outlines or panoptic, whose pictures lie beside it, in `images` there, or, where the file
    lies in `annotations`, beside that; PNGs of segments in a folder of the file's own name.

    Raises:
        DataError: as for `box_forms.coco` and `panoptic_form.rows`; pictures that are not there.
    """
    return kept(functools.partial(_coco_tables, path), [path], ["coco boxes, outlines and sizes"])


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
    whole, where = json.loads(path.read_text(encoding="utf-8-sig")), f"{str(path)!r}"
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
    names, objects, outlines, sizes = box_forms.coco(whole, where)
    root = _root(path, names, places)
    yield from box_forms.tables(Pictured(resolved(name, root, base, path), some, lines, size)
                                for name, some, lines, size in zip(names, objects, outlines, sizes))


def _root(path: Path, names: Sequence[str], places: Sequence[Path]) -> Path:
    """The first place where one of these files lies: some may be lost, not all."""
    named = ((name, place) for name in names for place in places)
    root = next((place for name, place in named if (place / name).is_file() or (place / name.replace("\\", "/")).is_file()),
                None)
    if root is None:
        listed = one_of([str(place) for place in dict.fromkeys(places)])
        raise DataError(f"{str(path)!r}: names {quoted(names[0]) if names else 'nothing'}, which is no picture in {listed}. "
                        "Put the pictures there.")
    return root


# --- VOC ---


def _voc(folder: Path, split_of: SplitOf) -> dict[str, Dataset]:
    """`Annotations/`, `JPEGImages/` and lists in `ImageSets/Main/`; or annotations beside pictures, by folder."""
    inside = files_in(folder)
    annotations = [path for path in inside if path.suffix.lower() == ".xml"]
    pictures = [path for path in inside if path.suffix.lower() in SUFFIXES]
    by_split = _by_lists(folder, annotations)
    if not by_split:
        for path in annotations:
            parts = path.relative_to(folder).parts[-2::-1]
            by_split.setdefault(next((one for part in parts if (one := split_of(part))), "train"), []).append(path)
    return {split: kept_rows(functools.partial(_voc_rows, paths, folder, pictures), [folder, "voc", *paths, *pictures], paths)
            for split, paths in by_split.items() if paths}


def _by_lists(folder: Path, annotations: Sequence[Path]) -> dict[str, list[Path]]:
    """`ImageSets/Main/train.txt`, `val.txt` and `test.txt`; `trainval.txt`, which is both, where there is no list of one."""
    lists = {path.stem: path for path in (folder / "ImageSets" / "Main").glob("*.txt")}
    stems = {path.stem: path for path in annotations}
    found = {}
    for split, name in {"train": "train" if "train" in lists else "trainval", "validation": "val", "test": "test"}.items():
        if (path := lists.get(name)) is None:
            continue
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        named = [line if line in stems else line.split()[0] for line in lines]
        lost = [one for one in named if one not in stems]
        if lost:
            raise DataError(f"{str(path)!r}: {len(lost)} of {len(named)} names have no annotation in {str(folder)!r}: "
                            f"{all_of(lost[:5])}.")
        found[split] = [stems[one] for one in named]
    return found


def _voc_rows(paths: Sequence[Path], folder: Path, pictures: Sequence[Path], notes: Notes) -> Iterator[Pictured]:
    stems: dict[str, list[Path]] = {}
    for one in pictures:
        stems.setdefault(one.stem, []).append(one)
    taken = set[Path]()
    for path in paths:
        name, objects, size = box_forms.voc(path)
        picture = _picture_of(folder, path, name, stems)
        taken |= {picture} if picture is not None else set()
        # one that is lost is where it would lie: the row is refused or left out like any that cannot be read
        named = name or f"{path.stem}.jpg" if picture is None else str(picture.relative_to(folder))
        yield Pictured(resolved(named, folder, folder, path), objects, size=size)
    places = {one.parent for one in taken}
    annotated = {path.stem for path in files_in(folder) if path.suffix.lower() == ".xml"}
    without = sum(one.parent in places and one.stem not in annotated for one in pictures)
    if without:
        notes.append((WARNING, f"{str(folder)!r}: {without} pictures, beside {len(taken)} others, have no annotation: left "
                               "out"))


def _picture_of(folder: Path, path: Path, name: str, stems: dict[str, list[Path]]) -> Path | None:
    """Whose annotation it is: of several pictures of its name the one beside it, the one in the same place below a folder of
    pictures, of the name that it says, or in such a folder (beside them lie masks of the same name).

    Raises:
        DataError: several are left.
    """
    named = Path(name.replace("\\", "/"))
    several = stems.get(path.stem) or stems.get(named.stem) or []
    beside = [one for one in several if one.parent == path.parent]
    within = _within(folder, path, _ANNOTATIONS)
    mirrored = [one for one in several if within is not None and _within(folder, one, _PICTURES) == within]
    said = [one for one in several if one.name == named.name]
    usual = [one for one in said or several if _within(folder, one, _PICTURES) is not None]
    chosen = next((some for some in (beside, mirrored, usual, said, several) if some), [])
    if len(chosen) > 1 and len({one.parent for one in chosen}) > 1:
        listed = all_of([str(one.relative_to(folder)) for one in chosen[:3]])
        raise DataError(f"{str(path)!r}: {listed} are called so; expected one picture for an annotation: in the same folders "
                        "below JPEGImages as it is below Annotations.")
    return chosen[0] if chosen else None


def _within(folder: Path, path: Path, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The folders before and after one of these names, on the way to a file."""
    parts = path.relative_to(folder).parts[:-1]
    at = next((place for place, part in enumerate(parts) if part.lower() in names), None)
    return None if at is None else (parts[:at], parts[at + 1 :])
