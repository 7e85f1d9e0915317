"""Boxes that cannot be used, or are not what they seem: named and counted, before anything learns from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray

from stilla.errors import DataError
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.vision.detection_data import Column, corners_of, cut
from stilla.tasks.vision.pictures import Pictures, opened
from stilla.tasks.vision.sections import DetectionData

logger = logging.getLogger(__name__)

_LISTED = 5
_SHARES = 2.0
"""What no number of a split's boxes goes beyond where all are shares: an edge lies at 1 at most, at 2 where it was added up
of two edges. In so few pixels there is nothing to be seen."""


def refuse_bad(
    section: DetectionData, name: str, column: Column, split: Dataset, pictures: Pictures,
    sizes: Mapping[int, tuple[int, int]],
) -> None:
    """Name and count boxes that are none: of no size, outside of their picture, or no four numbers. What only reaches over an
    edge is cut there, and counted.

    Raises:
        DataError: there are some, and the recipe does not leave them out; or all are read as something that they are not.
    """
    empty, outside, over, total, largest, unsaid, twice = list[str](), list[str](), 0, 0, 0.0, 0, list[str]()
    for row, value in enumerate(_columns.values(split, column.name)):
        if row not in sizes:
            continue
        unsaid += value is None
        objects = column.of(value)
        boxes = [box for box, _, _ in objects]
        bad = [box for box in boxes if box is None or len(box) != 4]
        if bad:
            raise DataError(f"data.{name}: {pictures.name(row)} has a box {bad[0]!r}; expected four numbers.")
        found = corners_of(section, boxes)
        if len({(*box, kind) for box, (_, kind, _) in zip(found.tolist(), objects)}) < len(found):
            twice.append(pictures.name(row))
        within, total = cut(found, sizes[row]), total + len(found)
        largest = max(largest, float(np.abs(found[np.isfinite(found)]).max(initial=0.0)))
        for box, rest in zip(found, within):
            said = f"{pictures.name(row)}: {_in_words(box)} of {sizes[row][0]} x {sizes[row][1]}"
            if not np.isfinite(box).all() or not (box[2:] > box[:2]).all():
                empty.append(said)
            elif not (rest[2:] > rest[:2]).all():
                outside.append(said)
            else:
                over += bool(np.abs(box - rest).max() > 1)
    _refuse_shares(name, largest)
    if unsaid:
        logger.warning("data.%s: %d of %d pictures have null in %r: read as pictures without objects. Where nobody has said "
                       "what is in them, give them as data.unlabelled", name, unsaid, len(split), column.name)
    if twice:
        logger.warning("data.%s: %d pictures have the same box of the same class more than once, each to be found by itself: "
                       "%s", name, len(twice), "; ".join(twice[:_LISTED]) + (" ..." if len(twice) > _LISTED else ""))
    if over:
        hint = _CORNERS if 2 * over > total and section.boxes == "xywh" else ""
        logger.warning("data.%s: %d of %d boxes reach over the edge of their picture: cut there%s", name, over, total, hint)
    for what, which in (("have no size", empty), ("lie outside of their picture", outside)):
        if which:
            listed = "; ".join(which[:_LISTED]) + (" ..." if len(which) > _LISTED else "")
            refuse_or_leave_out(section, f"data.{name}: {len(which)} of {total} boxes {what}", listed)


_CORNERS = ". That is most of them: if the column holds left, top, right and bottom, set data.boxes: xyxy"


def _refuse_shares(name: str, largest: float) -> None:
    """Raises:
        DataError: every number of every box is so small that they lie within the first pixels: shares of the picture.
    """
    if 0 < largest <= _SHARES:
        raise DataError(f"data.{name}: no box reaches further than pixel {largest:g} of its picture, as shares of 0 to 1 do "
                        "where they are read as pixels. Multiply them by the picture's width and height, or give them as "
                        "YOLO's folders do, whose boxes are shares.")


def refuse_none(name: str, column: Column, split: Dataset) -> None:
    """Raises:
        DataError: pictures are labelled, and not one has an object in it that is no crowd.
    """
    if not any(not crowd for row in _columns.values(split, column.name) for _, _, crowd in column.of(row)):
        raise DataError(f"data.{name}: {column.name!r} holds no object in any of {len(split)} pictures, so there is nothing "
                        "to find (crowds and what is difficult are not learnt). Give pictures with objects in them, or "
                        "these as data.unlabelled beside others.")


def _in_words(box: NDArray[np.float64]) -> str:
    return f"[{', '.join(f'{number:g}' for number in box)}] (left, top, right, bottom)"


def refuse_turned(name: str, split: Dataset, pictures: Pictures, sizes: Mapping[int, tuple[int, int]]) -> None:
    """Where columns say the width and height of the pictures that boxes or outlines were drawn in, those of another size are
    named.

    Raises:
        DataError: some were drawn in the picture as it is stored, which everyone else turns upright.
    """
    if not all(_whole(split.features.get(one)) for one in ("width", "height")):
        return
    turned, other = list[str](), list[str]()
    said = zip(*(_columns.values(split, one) for one in ("width", "height")))
    for row, drawn in enumerate(said):
        if row not in sizes or None in drawn or drawn == sizes[row]:
            continue
        found = turned if drawn == _stored(pictures, row) else other
        found.append(f"{pictures.name(row)}: {sizes[row][0]} x {sizes[row][1]}, said to be {drawn[0]} x {drawn[1]}")
    for some in (turned, other):
        some[_LISTED:] = ["..."] if len(some) > _LISTED else []
    if turned:
        raise DataError(f"data.{name}: pictures are stored turned (EXIF's orientation), and what is in them was drawn in "
                        f"them as stored, so that it would lie elsewhere in the upright ones: {'; '.join(turned)}. Take the "
                        "orientation out of these files, or give boxes and outlines of the upright pictures.")
    if other:
        logger.warning("data.%s: pictures have another size than the data say of them; places in them are read as "
                       "pixels of the picture as it is: %s", name, "; ".join(other))


def _whole(feature: object) -> bool:
    return isinstance(feature, Value) and bool(feature.dtype.startswith(("int", "uint")))


def _stored(pictures: Pictures, row: int) -> tuple[int, int]:
    """Width and height as they are stored, whatever EXIF says."""
    with opened(pictures.rows[row][pictures.column]) as picture:
        return picture.width, picture.height
