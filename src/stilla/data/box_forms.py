"""Forms in which boxes in pictures are written: COCO's JSON, VOC's XML, YOLO's text, as rows of one form.

A row is a picture: `image`, `objects`, a list of {bbox, category, crowd}: [left, top, width, height] in pixels of the upright
picture, a class by its name, and whether it is a crowd, or said to be difficult: something that is neither learnt nor counted
(as COCO's rules have it; Lin et al. 2014, arXiv:1405.0312). `width` and `height` are those of the picture that the boxes were
drawn in, where the file says it. Where COCO's JSON says masks, there is a second list, `outlines`: polygons or runs of each
object, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image, List, Value

from stilla.data.kept import Notes, kept
from stilla.errors import DataError, all_of, quoted

FEATURES = Features({"image": Image(), "objects": List(
    {"bbox": List(Value("float64")), "category": Value("string"), "crowd": Value("bool")}),
    "width": Value("int64"), "height": Value("int64")})
OUTLINED = Features({**FEATURES, "outlines": List(Value("string"))})
"""A column of its own: masks are large, and who learns boxes does not read them."""
SplitOf = Callable[[str], str | None]
"""The split that a name says: train, validation or test."""
Size = tuple[int | None, int | None]
"""Width and height, as a file says them."""
_AT_ONCE = 5_000
_LISTED = 5


@dataclass(frozen=True)
class Pictured:
    """A picture's file and what is in it."""

    path: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    outlines: list[str] | None = None
    """Of all pictures or of none."""
    size: Size = (None, None)
    """Of the picture that the boxes were drawn in."""


def kept_rows(rows: Callable[[Notes], Iterator[Pictured]], said: Sequence[Any], files: Sequence[Path]) -> Dataset:
    """What files say, read once. said: what else decides it."""
    digest = hashlib.blake2b("\n".join(map(str, said)).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return kept(lambda notes: tables(rows(notes)), files, ["boxes and sizes", digest])


def tables(rows: Iterable[Pictured]) -> Iterator[pa.Table]:
    some: list[Pictured] = []
    for row in rows:
        some.append(row)
        if len(some) == _AT_ONCE:
            yield _table(some)
            some = []
    if some:
        yield _table(some)


def _table(rows: Sequence[Pictured]) -> pa.Table:
    outlined = rows[0].outlines is not None
    schema = (OUTLINED if outlined else FEATURES).arrow_schema
    stored = [{"bytes": None, "path": row.path} for row in rows]
    columns = [stored, [row.objects for row in rows], *([row.size[axis] for row in rows] for axis in (0, 1)),
               *([[row.outlines for row in rows]] if outlined else [])]
    return pa.table([pa.array(column, one.type) for column, one in zip(columns, schema)], schema=schema)


# --- COCO ---


def is_coco(path: Path) -> bool:
    """Whether a `.json` means to be COCO's boxes: an object with lists of images, annotations and categories, or of
    annotations and one other where boxes are meant (captions have none). What it lacks is said by who reads it."""
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    first = start[1:].lstrip()
    if not start.startswith(b"{") or not first.startswith(tuple(b'"%s"' % name for name in _KEYS)):
        return False  # the rest may be large
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return False  # whoever reads it says what is wrong
    return isinstance(whole, dict) and _means_boxes(whole)


def _means_boxes(whole: Mapping[str, Any]) -> bool:
    images, annotations, categories = (isinstance(whole.get(name), list) for name in _PARTS)
    if not annotations or not (images or categories):
        return False
    return categories or any(isinstance(one, dict) and ("bbox" in one or "segments_info" in one)
                             for one in whole["annotations"])


_PARTS = ("images", "annotations", "categories")
_KEYS = (b"info", b"licenses", b"images", b"annotations", b"categories", b"type")


def coco(
    whole: Mapping[str, Any], where: str
) -> tuple[list[str], list[list[dict[str, Any]]], list[list[str]] | list[None], list[Size]]:
    """The pictures' names as a file has them, the objects of each, the outlines of these, where an object has one, and the
    pictures' sizes. whole: what the file holds. where: the file, in words.

    Raises:
        DataError: parts that are missing; annotations of pictures or categories that are not there; an id twice.
    """
    try:
        names = {one["id"]: str(one["name"]) for one in whole["categories"]}
        pictures = {one["id"]: (str(one["file_name"]), list[dict[str, Any]](), list[str]()) for one in whole["images"]}
        refuse_twice(where, "category", [one["id"] for one in whole["categories"]])
        refuse_twice(where, "image", [one["id"] for one in whole["images"]])
        sizes = [sized(one.get("width"), one.get("height")) for one in whole["images"]]
        lost: dict[str, list[Any]] = {"image": [], "category": []}
        for one in whole["annotations"]:
            if one["image_id"] not in pictures:
                lost["image"].append(one["image_id"])
            elif one["category_id"] not in names:
                lost["category"].append(one["category_id"])
            else:
                box = [float(number) for number in one["bbox"]]
                pictures[one["image_id"]][1].append(
                    {"bbox": box, "category": names[one["category_id"]], "crowd": bool(one.get("iscrowd", 0))})
                pictures[one["image_id"]][2].append(json.dumps(one.get("segmentation") or None))
    except (KeyError, TypeError, ValueError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: is no file of boxes in COCO's form: {said}; expected images with id and file_name, "
                        "annotations with image_id, category_id and bbox, and categories with id and name.") from None
    refuse_lost(where, lost, len(whole["annotations"]), "annotations")
    if not pictures:
        raise DataError(f"{where}: there are no examples in it.")
    found_names, objects, outlines = (list(part) for part in zip(*pictures.values()))
    outlined = any(one != "null" for several in outlines for one in several)
    return found_names, objects, outlines if outlined else [None] * len(outlines), sizes


def sized(width: Any, height: Any) -> Size:
    """A size that a file says, in whole pixels; none where it says none (some write 0)."""
    try:
        found = int(float(width or 0)), int(float(height or 0))
    except (TypeError, ValueError, OverflowError):
        return None, None
    return found if min(found) > 0 else (None, None)


def refuse_lost(where: str, lost: Mapping[str, Sequence[Any]], total: int, named: str) -> None:
    """lost: by what they are of (`image`, `category`), ids that the file does not have. named: what has them, in words.

    Raises:
        DataError: there are some.
    """
    for what, ids in lost.items():
        if ids:
            listed = all_of([str(one) for one in dict.fromkeys(ids)][:_LISTED])
            raise DataError(f"{where}: {len(ids)} of {total} {named} have a {what}_id that none of "
                            f"its {'images' if what == 'image' else 'categories'} has: {listed}. Take them out, or add "
                            "what they are about.")


def refuse_twice(where: str, what: str, ids: Sequence[Any]) -> None:
    """Raises:
        DataError: an id stands there more than once.
    """
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{where}: {len(twice)} ids of a {what} stand there more than once: "
                        f"{all_of([str(one) for one in twice[:_LISTED]])}; expected an id each.")


# --- VOC ---


def is_voc(path: Path) -> bool:
    """Whether an `.xml` means to be an annotation of VOC's."""
    with path.open("rb") as file:
        return b"<annotation" in file.read(4096)


def voc(path: Path) -> tuple[str, list[dict[str, Any]], Size]:
    """The picture's name, its objects and its size, of an annotation in PASCAL VOC's XML (Everingham et al. 2010).

    Its pixels are numbered from 1, and the last is within the box: [xmin, xmax] is [xmin - 1, xmax] in COCO's way.

    Raises:
        DataError: no XML, entities (which nobody needs here, and some are bombs), or parts that are missing.
    """
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(f"{str(path)!r}: declares entities; expected a plain annotation.")
    try:
        root = ElementTree.fromstring(content)
        found = [_of_voc(one) for one in root.iter("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{str(path)!r}: is no annotation in VOC's form: {error}.") from None
    return root.findtext("filename") or "", found, sized(root.findtext("size/width"), root.findtext("size/height"))


_NOT_DIFFICULT = ("", "0", "false", "no", "unspecified")


def _of_voc(one: ElementTree.Element) -> dict[str, Any]:
    name, box = one.findtext("name"), one.find("bndbox")
    if not name or box is None:
        raise ValueError("an object has no name or no bndbox")
    left, top, right, bottom = (_number(box.findtext(side), side) for side in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (one.findtext("difficult") or "").strip().lower() not in _NOT_DIFFICULT
    return {"bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1], "category": name.strip(), "crowd": difficult}


def _number(text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} is {quoted(text or '')}, which is no number")
    return value


# --- YOLO ---


def yolo(path: Path, names: Mapping[int, str], size: tuple[int, int]) -> list[dict[str, Any]]:
    """The objects of a file of lines `class x y width height`: the centre and the size as shares of the picture's (`size`:
    width, height). No file: no objects.

    Raises:
        DataError: other lines (polygons, confidences), or a class without a name.
    """
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        where = f"{str(path)!r}, line {number}"
        try:
            kind, values = int(cells[0]), [float(cell) for cell in cells[1:]]
        except ValueError:
            kind, values = -1, []
        if len(values) != 4 or kind < 0 or not all(map(math.isfinite, values)):
            raise DataError(f"{where}: got {quoted(line[:80])}; expected a class and four numbers: x, y of the centre, width "
                            "and height as shares of the picture's (no polygons, no confidences).")
        if kind not in names:
            raise DataError(f"{where}: class {kind} has no name; there are {len(names)} (data.yaml or classes.txt).")
        (x, y, wide, high), (width, height) = values, size
        found.append({"bbox": [(x - wide / 2) * width, (y - high / 2) * height, wide * width, high * height],
                      "category": names[kind], "crowd": False})
    return found
