"""Objects in columns: which one holds them, what their classes are called, and boxes that can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.errors import DataError, all_of, one_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.sections import DetectionData
from stilla.tasks.vision.sections import Objects as Section

BOXES = ("bbox", "bboxes", "boxes", "box")
CLASSES = ("category", "categories", "category_id", "label", "labels", "class", "class_id", "class_label", "name")
CROWDS = ("iscrowd", "is_crowd", "crowd", "difficult")
_SIDES = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
"""What people call them where a row is a box."""
_LISTED = 5


@dataclass(frozen=True)
class Column:
    """Where the objects stand: a column with a list of mappings, or a mapping of lists; and what its parts are called."""

    name: str
    box: str
    kind: str
    crowd: str | None

    def of(self, row: Any) -> list[tuple[Any, Any, bool]]:
        """Box, class and whether it is a crowd, of every object of a row.

        Raises:
            DataError: lists of different lengths.
        """
        if row is None:
            return []
        if isinstance(row, Mapping):
            boxes, kinds = row[self.box] or (), row[self.kind] or ()
            crowds = (row.get(self.crowd) if self.crowd else None) or [False] * len(boxes)
            if not len(boxes) == len(kinds) == len(crowds):
                of = {self.box: boxes, self.kind: kinds, **({self.crowd: crowds} if self.crowd else {})}
                raise DataError(f"data.objects: {self.name!r} has a picture with "
                                f"{all_of([f'{len(some)} in {name!r}' for name, some in of.items()])}; expected one of each "
                                "for every object.")
            return [(box, kind, bool(crowd)) for box, kind, crowd in zip(boxes, kinds, crowds)]
        return [(one[self.box], one[self.kind], bool(one.get(self.crowd) if self.crowd else False)) for one in row]


def inside(feature: Any) -> Mapping[str, Any] | None:
    """The parts of an object, where a column holds such: each by its own type."""
    if isinstance(feature, List | LargeList) and isinstance(feature.feature, Mapping):
        return feature.feature
    if isinstance(feature, Mapping) and "bytes" not in feature:
        parts = {name: part.feature for name, part in feature.items() if isinstance(part, List | LargeList)}
        return parts or None
    return None


def column_of(section: Section, split: Dataset, shapes: Sequence[str] = BOXES) -> Column:
    """`shapes`: what is looked for of an object, beside its class.

    Raises:
        DataError: no column holds objects, several do, or the one that is named does not.
    """
    fitting = {name: found for name, feature in split.features.items()
               if (found := parts_of(name, feature, shapes)) is not None}
    if section.objects is not None:
        _columns.existing("objects", (section.objects,), split)
        if section.objects not in fitting:
            raise DataError(f"data.objects: {section.objects!r} holds {_columns.said(split.features[section.objects])}; "
                            f"expected objects with {one_of(shapes[:3])} and {one_of(CLASSES[:4])}.")
        return fitting[section.objects]
    if "objects" in fitting or len(fitting) == 1:
        return fitting.get("objects") or next(iter(fitting.values()))
    why = f"{one_of([*fitting])} could be it" if fitting else f"no column holds objects ({{{shapes[0]}, category}})"
    if not fitting and any({*some} <= {*split.column_names} for some in _SIDES):
        why += ", and a table with a row for each box is not read: expected a row for each picture, with a list of its boxes"
    raise DataError(f"data.objects: which column holds the objects? {why}. {_columns.columns_of(split)} Set data.objects.")


def parts_of(name: str, feature: Any, shapes: Sequence[str]) -> Column | None:
    """The column, if it holds objects with one of these parts and a class."""
    parts = inside(feature)
    if parts is None:
        return None
    box, kind, crowd = (next((one for one in names if one in parts), None) for names in (shapes, CLASSES, CROWDS))
    return Column(name, box, kind, crowd) if box is not None and kind is not None else None


def understand(section: Section, column: Column, splits: Mapping[str, Dataset]) -> Problem:
    """The classes by name, in the order of their numbers, or of the alphabet.

    Raises:
        DataError: numbers without names where there are fewer names, classes that are null or neither text nor number.
    """
    first = splits.get("train", next(iter(splits.values())))
    feature = (inside(first.features[column.name]) or {})[column.kind]
    for name, split in splits.items():
        if column.name in split.column_names:
            _refuse_other_form(name, split, column, feature)
    values = {kind for split in splits.values() for row in _columns.values(split, column.name)
              for _, kind, _ in column.of(row)}
    if None in values:
        raise DataError(f"data.objects: {column.name!r} has objects without a class (null in {column.kind!r}).")
    if isinstance(feature, ClassLabel):
        return _numbered(column, [*feature.names], values)
    if isinstance(feature, Value) and feature.dtype.startswith(("int", "uint")):
        if section.labels is not None:
            return _numbered(column, [*section.labels], values)
        raw = tuple(str(one) for one in sorted(values))
        return Problem("class", (column.name,), raw, raw, named=False)
    if _columns.is_text(feature):
        names = tuple(sorted(values))
        if section.labels is not None:
            if unknown := sorted(values - {*section.labels}):
                raise DataError(f"data.labels: lacks {all_of([repr(one) for one in unknown[:_LISTED]])}, which stand in "
                                f"{column.name!r}.")
            names = section.labels
        return Problem("class", (column.name,), names, names)
    raise DataError(f"data.objects: {column.kind!r} of {column.name!r} is neither text nor a whole number.")


def _refuse_other_form(name: str, split: Dataset, column: Column, feature: Any) -> None:
    """Raises:
        DataError: a split has other parts than those of the first, or its classes' numbers stand for other names.
    """
    parts = inside(split.features[column.name]) or {}
    if lost := [one for one in (column.box, column.kind) if one not in parts]:
        raise DataError(f"data.{name}: the objects of {column.name!r} have no {one_of([repr(one) for one in lost])}, which "
                        f"they have elsewhere; expected the same in all splits, got {all_of([repr(one) for one in parts])}.")
    theirs = parts[column.kind]
    if isinstance(feature, ClassLabel) and isinstance(theirs, ClassLabel) and feature.names != theirs.names:
        raise DataError(f"data.{name}: {column.kind!r} numbers {all_of([*map(repr, theirs.names[:_LISTED])])}, and in other "
                        f"splits {all_of([*map(repr, feature.names[:_LISTED])])}: the same numbers would be other classes. "
                        "Give all splits the names in one order, or classes as text.")
    if _columns.is_text(feature) != _columns.is_text(theirs):
        raise DataError(f"data.{name}: {column.kind!r} of {column.name!r} holds {_columns.said(theirs)}, and in other splits "
                        f"{_columns.said(feature)}; expected the same in all.")


def _numbered(column: Column, names: Sequence[str], values: Any) -> Problem:
    outside = sorted(one for one in values if not 0 <= one < len(names))
    if outside:
        listed = all_of([str(one) for one in outside[:_LISTED]])
        raise DataError(f"data.objects: {column.name!r} has the classes {listed}, and there are {len(names)} names (0 to "
                        f"{len(names) - 1}).")
    return Problem("class", (column.name,), tuple(names), tuple(str(number) for number in range(len(names))))


@dataclass(frozen=True, eq=False)
class Objects:
    """Of every picture of a split (there, 6): left, top, right, bottom in its pixels, class in the models' order, crowd; None
    where nobody has said it."""

    rows: Sequence[NDArray[np.float64] | None]

    def targets(self, picture: int, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """(there, 5): class, centre x, y, width, height in shares of the picture; without crowds."""
        found = self.rows[picture]
        if found is None:
            return None
        found = found[found[:, 5] == 0]
        span = np.array(size, float)
        low, high = found[:, :2] / span, found[:, 2:4] / span
        whole: NDArray[np.float32] = np.column_stack([found[:, 4], (low + high) / 2, high - low]).astype(np.float32)
        return whole


def read(
    section: DetectionData, problem: Problem, column: Column, split: Dataset, sizes: Mapping[int, tuple[int, int]]
) -> Objects:
    """Boxes cut to their pictures; those of no size, or outside, left out: `box_checks` has said so."""
    index = {raw: place for place, raw in enumerate(problem.raw)}
    unlabelled = are_unlabelled(split)
    rows: list[NDArray[np.float64] | None] = []
    named = column.name in split.column_names
    values = _columns.values(split, column.name) if named else [None] * len(split)
    for row, value in enumerate(values):
        if unlabelled[row] or not named or row not in sizes:
            rows.append(None)
            continue
        found = corners_of(section, [box for box, _, _ in column.of(value)])
        kinds = np.array([[index[str(kind)], crowd] for _, kind, crowd in column.of(value)], float)
        within = cut(found, sizes[row])
        rows.append(np.column_stack([within, kinds.reshape(-1, 2)])[_usable(within)])
    return Objects(rows)


def corners_of(section: DetectionData, boxes: Sequence[Any]) -> NDArray[np.float64]:
    """(there, 4): left, top, right, bottom."""
    found = np.array([[np.nan if one is None else one for one in box] for box in boxes], float).reshape(-1, 4)
    if section.boxes == "xywh":
        found[:, 2:] += found[:, :2]
    return found


def cut(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """What of them lies in a picture of this size."""
    within: NDArray[np.float64] = boxes.clip(0, np.array([*size, *size], float))
    return within


def _usable(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    found = np.isfinite(boxes) & np.concatenate([boxes[:, 2:] > boxes[:, :2]] * 2, 1)
    usable: NDArray[np.bool_] = np.all(found, axis=1)
    return usable
