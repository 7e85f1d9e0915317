"""Masks of objects as COCO writes them, polygons and runs, as pixels.

Equal to pycocotools, which is not needed; a test holds it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from stilla.errors import DataError, short

_FINER = 5
"""How many steps a pixel has along the edge of a polygon, as pycocotools has them."""
_EXPECTED = ("expected polygons, [[x, y, x, y, x, y, ...], ...] in pixels, or runs, {size: [height, width], counts: ...}")


def parsed(outline: Any) -> Any:
    """Of a text the JSON in it; a text that is none is the counts of runs, whose size nobody has said."""
    if not isinstance(outline, str):
        return outline
    try:
        return json.loads(outline)
    except ValueError:
        return outline


def trouble(outline: Any, size: tuple[int, int]) -> str | None:
    """Why it is no mask of a picture of this size (width, height), in words; None if it is one, as far as can be seen without
    drawing it."""
    outline = parsed(outline)
    if _is_runs(outline):
        height, width = outline["size"]
        if (width, height) != size:
            return f"its runs are of {width} x {height} pixels, the picture has {size[0]} x {size[1]}"
        try:
            total = int(_counts(outline["counts"]).sum())
        except (TypeError, ValueError):
            return f"its counts are {short(repr(outline['counts']), 60)}, which are no runs"
        whole = height * width
        return None if total == whole else f"its runs are {total} pixels, and {width} x {height} are {whole}"
    rings = _rings(outline)
    if rings is None:
        return f"it is {short(repr(outline), 60)}; {_EXPECTED}"
    corners = np.concatenate([np.asarray(ring, float).reshape(-1, 2) for ring in rings])
    low, high = corners.min(0).clip(0, size), corners.max(0).clip(0, size)
    return None if (high > low).all() else "it covers nothing of its picture"


def drawn(outline: Any, size: tuple[int, int]) -> Bool[NDArray[np.bool_], "height width"]:
    """Raises:
        DataError: it is no mask of a picture of this size (width, height).
    """
    outline = parsed(outline)
    if (why := trouble(outline, size)) is not None:
        raise DataError(f"a mask cannot be used: {why}.")
    width, height = size
    if _is_runs(outline):
        counts = _counts(outline["counts"])
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return values.reshape(width, height).T
    found = np.zeros((height, width), bool)
    for ring in _rings(outline) or ():
        found |= _polygon(np.asarray(ring, float).reshape(-1, 2), width, height)
    return found


def _is_runs(outline: Any) -> bool:
    size = outline.get("size") if isinstance(outline, Mapping) else None
    return isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) for side in size)


def _rings(outline: Any) -> Sequence[Any] | None:
    """Polygons, each a list of at least three corners; None where it is something else."""
    if not isinstance(outline, Sequence) or isinstance(outline, str) or not outline:
        return None
    rings = [outline] if all(isinstance(one, int | float) for one in outline) else outline
    for ring in rings:
        if not isinstance(ring, Sequence) or isinstance(ring, str) or len(ring) < 6 or len(ring) % 2:
            return None
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in ring):
            return None
    return rings


def _counts(counts: Any) -> NDArray[np.int64]:
    """Lengths of runs, of nothing first: a list, or COCO's text, five bits to a character, each from the third on as what it
    is more than the one before the last."""
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    if not isinstance(counts, str):
        found = np.asarray(counts, np.int64)
        if found.ndim != 1 or (found < 0).any():
            raise ValueError(counts)
        return found
    made: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(counts)
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        made.append(value + (made[-2] if len(made) > 2 else 0))
        value, shift = 0, 0
    if shift or any(one < 0 for one in made):
        raise ValueError(counts)
    return np.array(made, np.int64)


def _polygon(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """The pixels within: where its edge crosses the middle of a column, inside and outside change places from there down."""
    fine = np.trunc(_FINER * corners + 0.5).astype(np.int64)
    ends = np.roll(fine, -1, 0)
    xs, ys = (np.concatenate(parts) for parts in zip(*(_edge(a, b) for a, b in zip(fine, ends))))
    before, after = xs[:-1], xs[1:]
    changed = np.flatnonzero(before != after)
    before, after = before[changed], after[changed]
    column = (np.where(after < before, after, after - 1) + 0.5) / _FINER - 0.5
    row = (np.minimum(ys[1:], ys[:-1])[changed] + 0.5) / _FINER - 0.5
    inside = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    down = np.ceil(row[inside].clip(0, height)).astype(np.int64)
    places = column[inside].astype(np.int64) * height + down
    crossings = np.bincount(places, minlength=height * width + 1)[: height * width]
    odd: NDArray[np.bool_] = np.cumsum(crossings) % 2 == 1
    return odd.reshape(width, height).T


def _edge(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All fine places from one corner to the next; drawn from the smaller end, so that it is the same both ways."""
    (xs, ys), (xe, ye) = start.tolist(), end.tolist()
    flat = abs(xe - xs) >= abs(ye - ys)
    turned = xs > xe if flat else ys > ye
    if turned:
        xs, xe, ys, ye = xe, xs, ye, ys
    steps = np.arange((xe - xs if flat else ye - ys) + 1)
    steps = steps[::-1] if turned else steps
    if flat:
        slope = (ye - ys) / (xe - xs) if xe > xs else 0.0
        return steps + xs, np.trunc(ys + slope * steps + 0.5).astype(np.int64)
    slope = (xe - xs) / (ye - ys)
    return np.trunc(xs + slope * steps + 0.5).astype(np.int64), steps + ys
