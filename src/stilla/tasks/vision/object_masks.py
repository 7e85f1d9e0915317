"""Masks of objects in columns as pixels and as shares of places: what can be used of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset
from jaxtyping import Bool
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.errors import DataError, counted
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision import outlines
from stilla.tasks.vision.canvases import Size
from stilla.tasks.vision.mask_sets import MaskSet, packed
from stilla.tasks.vision.masks import Masks, ids_of, look
from stilla.tasks.vision.object_columns import THING, Found, undecoded
from stilla.tasks.vision.panoptic_data import NOBODY, Panoptic, odd_segments
from stilla.tasks.vision.parted import Parted, contested, disjoint, parted
from stilla.tasks.vision.pictures import Pictures, opened, unread
from stilla.tasks.vision.segmentation_section import ImageSegmentationData

_LISTED = 5
_KEEP = 2**29
"""Bytes of finished targets that a split may keep in memory."""


class Objects:
    """The objects of a split's pictures. What cannot be used is left out: `broken` has said so."""

    def __init__(
        self, found: Found, problem: Problem, split: Dataset, sizes: Mapping[int, Size], panoptic: Panoptic | None = None
    ) -> None:
        """sizes: width and height of pictures that can be read. panoptic: how pictures are parted; None: they are not."""
        self._found, self._sizes, self._panoptic = found, sizes, panoptic
        self._stuff = frozenset[int]() if panoptic is None else panoptic.places(problem)
        self._index = {raw: place for place, raw in enumerate(problem.raw)}
        there = all(name in split.column_names for name in found.columns)
        self._known = ~are_unlabelled(split) if there else np.zeros(len(split), np.bool_)
        self._rows = undecoded(split.select_columns(list(found.columns)), found).with_format(None) if there else split
        self._ids = Masks.of(split, found.single, found.read) if there and found.single is not None else None
        self._kept: dict[tuple[int, tuple[int, int]], tuple[NDArray[np.int64], bytes]] = {}
        self._room = _KEEP

    def of(self, row: int) -> MaskSet:
        """(of no size where nobody has said what is there)"""
        if not self._known[row] or row not in self._sizes:
            return packed(np.zeros((0, 2)), np.zeros((0, 0, 0), bool))
        return packed(*self._read(row))

    def parted(self, row: int) -> Parted:
        """The same of pictures that are parted."""
        if not self._known[row] or row not in self._sizes:
            return parted(np.zeros((0, 2)), np.zeros((0, 0, 0), bool))
        return parted(*self._read(row))

    def contested(self, row: int) -> int:
        """How many pixels of a picture that is parted several segments claim."""
        if not self._known[row] or row not in self._sizes:
            return 0
        return int(contested(*self._written(row), self._stuff).sum())

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
        """Class and crowd of each object, and its mask; of pictures that are parted, of each segment."""
        numbers, masks = self._written(row)
        if self._panoptic is None:
            return numbers, masks
        if self._panoptic.rest is not None:
            numbers = np.concatenate([numbers, [[self._index[self._panoptic.rest], 0]]])
            masks = np.concatenate([masks, masks.sum(0)[None] == 0])
        return disjoint(numbers, masks, self._stuff)

    def _written(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The same as the data have it, without what has no pixel."""
        width, height = size = self._sizes[row]
        if self._ids is not None:
            numbers, masks = self._of_ids(self._ids.ids(row), row)
        elif self._found.column is None:
            said = (_mask(one, size) for one in self._rows[int(row)][self._found.masks] or ())
            masks = _stacked([one for one in said if not isinstance(one, str)], size)
            numbers = self._numbers([(THING, False)] * len(masks))
        else:
            several = [one for one in _written(self._found, self._rows[int(row)]) if outlines.trouble(one[0], size) is None]
            numbers = self._numbers([(kind, crowd) for _, kind, crowd in several])
            masks = _stacked([outlines.drawn(outline, size) for outline, _, _ in several], size)
        seen = masks.reshape(len(masks), height * width).any(1)
        return numbers[seen], masks[seen]

    def _of_ids(self, ids: NDArray[Any], row: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        column = self._found.column
        said = dict[int, tuple[Any, bool]]() if column is None else {
            one: (kind, crowd) for one, kind, crowd in column.of(self._rows[int(row)][column.name])}
        some = [one for one in np.unique(ids[ids > NOBODY]).tolist() if column is None or one in said]
        masks = ids[None] == np.array(some, ids.dtype)[:, None, None]
        return self._numbers([said.get(one, (THING, False)) for one in some]), masks

    def _numbers(self, several: Sequence[tuple[Any, bool]]) -> NDArray[np.float64]:
        """Of classes as they are spelled, and of crowds."""
        return np.array([[self._index[str(kind)], crowd] for kind, crowd in several], float).reshape(-1, 2)


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
    if found.single is not None:
        seen = look(split, image, found.single, found.read)
        if found.column is not None:
            named = {row: pictures.name(row) for row in seen.ids}
            return Looked(dict(seen.broken), *odd_segments(found.column, split, seen.ids, named))
        return Looked(dict(seen.broken), [], sum(len(ids.keys() - {NOBODY}) for ids in seen.ids.values()))
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


def refuse_contested(
    section: ImageSegmentationData, name: str, split: Dataset, image: str, objects: Objects, sizes: Mapping[int, Size]
) -> None:
    """Raises:
        DataError: of pictures that are parted, some have pixels that several masks claim, and the recipe does not leave these
            out.
    """
    pictures = Pictures.of(split, image)
    found = {row: number for row in sizes if (number := objects.contested(row))}
    if found:
        listed = "; ".join(f"{pictures.name(row)}: {counted(number, 'pixel')}" for row, number in [*found.items()][:_LISTED])
        refuse_or_leave_out(
            section, f"data.{name}: in {len(found)} of {len(split)} pictures masks of things (or of several classes of "
            "stuff) overlap, and a pixel belongs to one segment at most", listed + (" ..." if len(found) > _LISTED else ""))
