"""Which columns hold the masks of objects, in what form, and what their classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Image, LargeList, List

from stilla.errors import DataError, all_of, one_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision import detection_data
from stilla.tasks.vision.detection_data import Column
from stilla.tasks.vision.masks import Read, ids_of
from stilla.tasks.vision.panoptic_data import segment_ids
from stilla.tasks.vision.pictures import holds_pictures
from stilla.tasks.vision.segmentation_section import ImageSegmentationData

OUTLINES = ("segmentation", "segmentations", "polygons", "polygon", "outline", "outlines", "rle", "mask")
"""What people call the part of an object that is its mask."""
_BESIDE = "outlines"
"""The column of masks beside that of objects, as files in COCO's form are read."""
MASKS = ("instances", "instance", "instance_mask", "instance_masks", "masks", "mask", "annotation", "annotations", "label")
"""What people call the column of masks, the surest first."""
SEGMENTS = ("segments_info", "segments")
"""What people call the column that says what the ids of a panoptic picture are, and"""
COLOURED = ("panoptic", "panoptic_mask", "panoptic_map", "panoptic_segmentation", "label", "annotation", "mask",
            "segmentation")
"""that picture's."""
_THING = "object"
THING, REST = "0", "1"
"""How objects without classes and, in panoptic pictures, all that is none of them are spelled."""
_LISTED = 5


@dataclass(frozen=True)
class Found:
    """Where the masks stand: with classes, in a column of objects or beside it; or, of one class, in a column of pictures; or
    in one of pictures whose colours are ids, each with its class in the column of objects."""

    column: Column | None
    beside: str | None
    masks: str | None
    several: bool = False
    """Whether that holds a picture for each object."""

    @property
    def columns(self) -> tuple[str, ...]:
        named = (None if self.column is None else self.column.name, self.beside, self.masks)
        return tuple(name for name in named if name is not None)

    @property
    def single(self) -> str | None:
        """The column of one picture a row whose numbers are objects or segments, where it is such."""
        return None if self.several else self.masks

    @property
    def coloured(self) -> bool:
        """Whether these are ids of segments."""
        return self.column is not None and self.masks is not None

    @property
    def read(self) -> Read:
        """How such a picture says its numbers."""
        return segment_ids if self.coloured else ids_of


def find(section: ImageSegmentationData, split: Dataset) -> Found:
    """Raises:
        DataError: no column holds masks, several do, or the one that is named does not.
    """
    if (coloured := _segments(section, split)) is not None:
        return coloured
    if section.objects is not None and section.masks is not None:
        raise DataError("data.masks: data.objects names a column with masks too; keep one of them")
    if section.masks is None:
        if _BESIDE in split.column_names and _columns.is_text(_inner(split.features[_BESIDE])):
            return Found(detection_data.column_of(section, split), _BESIDE, None)
        if section.objects is not None or any(_outlined(split.features[name]) for name in split.column_names):
            return Found(detection_data.column_of(section, split, OUTLINES), None, None)
    named = (section.masks,) if section.masks is not None else ()
    fitting = [*_columns.existing("masks", named, split)] or [name for name in MASKS if name in split.column_names]
    fitting = [name for name in fitting if _holds_masks(split.features[name])]
    if fitting:
        return Found(None, None, fitting[0], not holds_pictures(split.features[fitting[0]]))
    if section.masks is not None:
        raise DataError(f"data.masks: {section.masks!r} holds {_columns.said(split.features[section.masks])}; expected "
                        "pictures whose numbers are objects, or lists of pictures.")
    raise DataError(f"data.objects: which column holds the objects' masks? None holds objects with {one_of(OUTLINES[:3])} "
                    f"and a class, and none is called {one_of(MASKS[:3])}. {_columns.columns_of(split)} Set data.objects or "
                    "data.masks.")


def _segments(section: ImageSegmentationData, split: Dataset) -> Found | None:
    """A column of segments with ids, and one of pictures that have these: both named, or called as usual."""
    named = section.objects or next((name for name in SEGMENTS if name in split.column_names), None)
    if named is None or named not in split.column_names or (section.masks is None and named not in SEGMENTS):
        return None
    column = detection_data.parts_of(named, split.features[named], ("id",))
    usual = [section.masks] if section.masks is not None else [*COLOURED]
    pictures = [name for name in usual if name in split.column_names and holds_pictures(split.features[name])]
    return Found(column, None, pictures[0]) if column is not None and pictures else None


def undecoded(split: Dataset, found: Found) -> Dataset:
    """Masks as they are stored."""
    if found.masks is None:
        return split
    return split.cast_column(found.masks, List(Image(decode=False)) if found.several else Image(decode=False))


def _inner(feature: Any) -> Any:
    return feature.feature if isinstance(feature, List | LargeList) else None


def _holds_masks(feature: Any) -> bool:
    return holds_pictures(feature) or holds_pictures(_inner(feature))


def _outlined(feature: Any) -> bool:
    parts = detection_data.inside(feature)
    return parts is not None and any(name in parts for name in OUTLINES)


def understand(section: ImageSegmentationData, found: Found, splits: Mapping[str, Dataset]) -> Problem:
    """The classes by name.

    Raises:
        DataError: as for boxes; several names of things or of stuff where masks are of one class.
    """
    if found.column is not None:
        return detection_data.understand(section, found.column, splits)
    names = section.labels or (_THING,)
    if len(names) != 1:
        raise DataError(f"data.labels: got {all_of([repr(one) for one in names[:_LISTED]])}; the masks in {found.masks!r} "
                        "say nothing of classes: expected one name. Objects of several classes need a column of objects "
                        "(data.objects)")
    if section.stuff and (len(section.stuff) > 1 or section.stuff[0] in names):
        raise DataError(f"data.stuff: got {all_of([repr(one) for one in section.stuff[:_LISTED]])}; the masks in "
                        f"{found.masks!r} say nothing of classes: expected one name, for all that is no {names[0]}")
    names = (*names, *(section.stuff or ()))
    return Problem("class", (found.columns[0],), names, (THING, REST)[: len(names)],
                   named=section.labels is not None or len(names) > 1)
