"""Objects with masks in columns: which hold them, in what form, and masks that can be used."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import PIL.Image
from datasets import Dataset, Image, LargeList, List
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.errors import DataError, all_of, one_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision import detection_data, outlines
from stilla.tasks.vision.canvases import Size
from stilla.tasks.vision.detection_data import Column
from stilla.tasks.vision.masks import Masks, ids_of, look
from stilla.tasks.vision.pictures import Pictures, holds_pictures, opened, unread
from stilla.tasks.vision.segmentation_section import ImageSegmentationData

logger = logging.getLogger(__name__)

OUTLINES = ("segmentation", "segmentations", "polygons", "polygon", "outline", "outlines", "rle", "mask")
"""What people call the part of an object that is its mask."""
_BESIDE = "outlines"
"""The column of masks beside that of objects, as files in COCO's form are read."""
MASKS = ("instances", "instance", "instance_mask", "instance_masks", "masks", "mask", "annotation", "annotations", "label")
"""What people call the column of masks, the surest first."""
_THING = "object"
_LISTED = 5
_KEEP = 2**29
"""Bytes of finished targets that a split may keep in memory."""


class MaskSet(TypedDict):
    """Objects of a picture. numbers: (objects, 2) class, and a score or whether it is a crowd. masks: of each the bits of
    (height, width), in little memory: masks are large and plain. size: height and width."""

    numbers: NDArray[np.float64]
    masks: tuple[bytes, ...]
    size: tuple[int, int]


def packed(
    numbers: Float[NDArray[np.float64], "objects 2"], masks: Bool[NDArray[np.bool_], "objects height width"]
) -> MaskSet:
    height, width = masks.shape[1:]
    return {"numbers": numbers, "masks": tuple(map(bits_of, masks)), "size": (height, width)}


def bits_of(mask: Bool[NDArray[np.bool_], "height width"]) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpacked(some: MaskSet) -> Bool[NDArray[np.bool_], "objects height width"]:
    masks = list(_whole(some))
    return np.stack(masks) if masks else np.zeros((0, *some["size"]), bool)


def _whole(some: MaskSet) -> Iterator[NDArray[np.bool_]]:
    height, width = some["size"]
    for one in some["masks"]:
        bits = np.frombuffer(zlib.decompress(one), np.uint8)
        yield np.unpackbits(bits, count=height * width).astype(bool).reshape(height, width)


def overlaps(found: MaskSet, there: MaskSet) -> Float[NDArray[np.float64], "found there"]:
    """IoU of masks; with a crowd, the share of what was found that lies in it. Of pictures of one size; where nobody has said
    what is there, nothing is.

    Of each mask only its own pixels are in memory: all masks of a large picture are gigabytes.
    """
    if there["size"] != found["size"]:
        return np.zeros((len(found["masks"]), 0))
    own, theirs = _pixels(found), _pixels(there)
    shared = np.asarray((own @ theirs.T).todense(), np.float64)
    sizes, others = (np.asarray(one.sum(1), np.float64).reshape(-1) for one in (own, theirs))
    crowd = there["numbers"][:, 1] > 0
    whole = np.where(crowd[None], sizes[:, None], sizes[:, None] + others[None] - shared)
    shares: NDArray[np.float64] = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return shares


def _pixels(some: MaskSet) -> Any:
    """(objects, pixels) ones, sparse."""
    from scipy import sparse

    places = [np.flatnonzero(mask) for mask in _whole(some)]
    ends = np.cumsum([0, *map(len, places)])
    height, width = some["size"]
    inside = np.concatenate(places) if places else np.zeros(0, np.int64)
    return sparse.csr_matrix((np.ones(len(inside)), inside, ends), (len(places), height * width))


@dataclass(frozen=True)
class Found:
    """Where the masks stand: with classes, in a column of objects or beside it; or, of one class, in a column of pictures."""

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
    def numbered(self) -> str | None:
        """The column of pictures whose numbers are objects, where it is such."""
        return None if self.several else self.masks


def find(section: ImageSegmentationData, split: Dataset) -> Found:
    """Raises:
        DataError: no column holds masks, several do, or the one that is named does not.
    """
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
        DataError: as for boxes; several names where masks are of one class.
    """
    if found.column is not None:
        return detection_data.understand(section, found.column, splits)
    names = section.labels or (_THING,)
    if len(names) != 1:
        raise DataError(f"data.labels: got {all_of([repr(one) for one in names[:_LISTED]])}; the masks in {found.masks!r} "
                        "say nothing of classes: expected one name. Objects of several classes need a column of objects "
                        "(data.objects)")
    return Problem("class", (found.columns[0],), names, ("0",), named=section.labels is not None)


class Objects:
    """The objects of a split's pictures. What cannot be used is left out: `broken` has said so."""

    def __init__(self, found: Found, problem: Problem, split: Dataset, sizes: Mapping[int, Size]) -> None:
        """sizes: width and height of pictures that can be read."""
        self._found, self._sizes = found, sizes
        self._index = {raw: place for place, raw in enumerate(problem.raw)}
        there = all(name in split.column_names for name in found.columns)
        self._known = ~are_unlabelled(split) if there else np.zeros(len(split), np.bool_)
        self._rows = undecoded(split.select_columns(list(found.columns)), found).with_format(None) if there else split
        self._ids = Masks.of(split, found.numbered) if there and found.numbered is not None else None
        self._kept: dict[tuple[int, tuple[int, int]], tuple[NDArray[np.int64], bytes]] = {}
        self._room = _KEEP

    def of(self, row: int) -> MaskSet:
        """(of no size where nobody has said what is there)"""
        if not self._known[row] or row not in self._sizes:
            return packed(np.zeros((0, 2)), np.zeros((0, 0, 0), bool))
        return packed(*self._read(row))

    def targets(self, row: int, grid: tuple[int, int]) -> NDArray[np.float32] | None:
        """(there, 1 + places): class, and which share of each place it covers; without crowds. None where nobody has said
        what is there."""
        if not self._known[row] or row not in self._sizes:
            return None
        if (row, grid) not in self._kept:
            numbers, masks = self._read(row)
            own = numbers[:, 1] == 0
            shares = covered(masks[own], grid)
            kept = numbers[own, 0].astype(np.int64), zlib.compress(shares.tobytes(), 1)
            if len(kept[1]) > self._room:
                return _target(kept[0], shares)
            self._room -= len(kept[1])
            self._kept[row, grid] = kept
        kinds, content = self._kept[row, grid]
        return _target(kinds, np.frombuffer(zlib.decompress(content), np.uint8).reshape(len(kinds), grid[0] * grid[1]))

    def _read(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Class and crowd of each object, and its mask."""
        width, height = size = self._sizes[row]
        if self._ids is not None:
            ids = self._ids.ids(row)
            some = np.unique(ids[ids > 0])
            masks, numbers = ids[None] == some[:, None, None], np.zeros((len(some), 2))
        elif self._found.column is None:
            said = (_mask(one, size) for one in self._rows[int(row)][self._found.masks] or ())
            masks = _stacked([one for one in said if not isinstance(one, str)], size)
            numbers = np.zeros((len(masks), 2))
        else:
            several = [one for one in _written(self._found, self._rows[int(row)]) if outlines.trouble(one[0], size) is None]
            numbers = np.array([[self._index[str(kind)], crowd] for _, kind, crowd in several], float).reshape(-1, 2)
            masks = _stacked([outlines.drawn(outline, size) for outline, _, _ in several], size)
        seen = masks.reshape(len(masks), height * width).any(1)
        return numbers[seen], masks[seen]


def _target(kinds: NDArray[np.int64], shares: NDArray[np.uint8]) -> NDArray[np.float32]:
    whole: NDArray[np.float32] = np.column_stack([kinds, shares / 255]).astype(np.float32)
    return whole


def covered(masks: Bool[NDArray[np.bool_], "objects height width"], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """(objects, places) which share of each place of a grid over the picture a mask covers, in 255ths."""
    found = np.empty((len(masks), *grid), np.uint8)
    for place, one in enumerate(masks):
        picture = PIL.Image.fromarray(one.astype(np.uint8) * np.uint8(255))
        found[place] = np.asarray(picture.resize(grid[::-1], PIL.Image.Resampling.BOX))
    return found.reshape(len(masks), grid[0] * grid[1])


def _stacked(masks: Sequence[NDArray[np.bool_]], size: Size) -> NDArray[np.bool_]:
    return np.stack(masks) if masks else np.zeros((0, size[1], size[0]), bool)


def _mask(stored: Any, size: Size) -> NDArray[np.bool_] | str:
    """Its pixels; in words why it is no mask of a picture of this size (width, height)."""
    try:
        with opened(stored) as picture:
            mask: NDArray[np.bool_] = ids_of(picture) > 0
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError and others
        return f"a mask cannot be read: {unread(error)}"
    if mask.shape != size[::-1]:
        return f"a mask has {mask.shape[1]} x {mask.shape[0]} pixels and the picture {size[0]} x {size[1]}"
    return mask if mask.any() else "a mask is empty"


def _written(found: Found, row: Mapping[str, Any]) -> list[tuple[Any, Any, bool]]:
    """Outline, class and whether it is a crowd, of every object of a row."""
    assert found.column is not None
    objects = found.column.of(row[found.column.name])
    if found.beside is None:
        return objects
    return [(outline, kind, crowd) for outline, (_, kind, crowd) in zip(row[found.beside] or (), objects, strict=True)]


@dataclass(frozen=True)
class Looked:
    """What was seen of a split. `broken`: rows that cannot be used, and why. `odd`: masks that cannot, in words. `objects`:
    how many there are."""

    broken: dict[int, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    objects: int = 0


def looked(found: Found, split: Dataset, image: str, sizes: Mapping[int, Size]) -> Looked:
    """Every mask, as far as can be seen without drawing it."""
    pictures, odd, objects = Pictures.of(split, image), list[str](), 0
    if found.numbered is not None:
        seen = look(split, image, found.numbered)
        return Looked(dict(seen.broken), [], sum(len(ids.keys() - {0}) for ids in seen.ids.values()))
    rows = undecoded(split.select_columns(list(found.columns)), found).with_format(None)
    for row, size in sizes.items():
        if found.column is None:
            whys = [said if isinstance(said := _mask(one, size), str) else None for one in rows[row][found.masks] or ()]
        else:
            whys = [outlines.trouble(outline, size) for outline, _, _ in _written(found, rows[row])]
        objects += len(whys)
        odd += [f"{pictures.name(row)}: {why}" for why in whys if why is not None]
    return Looked({}, odd, objects)


def refuse_bad(section: ImageSegmentationData, name: str, seen: Looked) -> None:
    """Raises:
        DataError: masks cannot be used, and the recipe does not leave them out; or there is no object at all in what is to be
            learnt from.
    """
    if seen.odd:
        listed = "; ".join(seen.odd[:_LISTED]) + (" ..." if len(seen.odd) > _LISTED else "")
        refuse_or_leave_out(section, f"data.{name}: {len(seen.odd)} of {seen.objects} masks cannot be used", listed)
    if name == "train" and not seen.objects:
        raise DataError(f"data.{name}: there is no object in any picture, so there is nothing to find. Give pictures with "
                        "objects in them, or these as data.unlabelled beside others.")
