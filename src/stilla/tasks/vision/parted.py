"""Pictures parted into segments, of which a pixel belongs to one at most: things and stuff alike."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.vision.masks import Packed


class Parted(TypedDict):
    """Segments of a picture. numbers: (segments, 2) class, and a score or whether it is a crowd. places: of every pixel the
    place of its segment among these, NO_ANSWER where it belongs to none; 0 x 0 where nobody has said it."""

    numbers: NDArray[np.float64]
    places: Packed


def parted(
    numbers: Float[NDArray[np.float64], "segments 2"], masks: Bool[NDArray[np.bool_], "segments height width"]
) -> Parted:
    """Of masks that share no pixel."""
    places = np.full(masks.shape[1:], NO_ANSWER, np.int16)
    for place, mask in enumerate(masks):
        places[mask] = place
    return {"numbers": numbers, "places": Packed.of(places)}


def contested(
    numbers: Float[NDArray[np.float64], "segments 2"], masks: Bool[NDArray[np.bool_], "segments height width"],
    stuff: Collection[int],
) -> Bool[NDArray[np.bool_], "height width"]:
    """The pixels that two segments claim of which neither gives way: two things, or stuff of two classes. A thing lies before
    stuff, and any of both before a crowd."""
    kinds, crowd = numbers[:, 0].astype(np.int64), numbers[:, 1] > 0
    is_stuff = np.isin(kinds, list(stuff))
    things = masks[~is_stuff & ~crowd].sum(0)
    behind = sum((masks[(kinds == kind) & ~crowd].any(0).astype(np.int64) for kind in np.unique(kinds[is_stuff])),
                 np.zeros(masks.shape[1:], np.int64))
    twice: NDArray[np.bool_] = (things > 1) | ((things == 0) & (behind > 1))
    return twice


def disjoint(
    numbers: Float[NDArray[np.float64], "segments 2"], masks: Bool[NDArray[np.bool_], "segments height width"],
    stuff: Collection[int],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The segments of a picture: those of one class of stuff are one, things lie before stuff and both before crowds, and
    what is `contested` is nobody's. What is left without a pixel is none."""
    free = ~contested(numbers, masks, stuff)
    kinds, crowd = numbers[:, 0].astype(np.int64), numbers[:, 1] > 0
    is_stuff = np.isin(kinds, list(stuff)) & ~crowd
    several = [(numbers[place], masks[place]) for place in np.flatnonzero(~is_stuff & ~crowd)]
    for kind in np.unique(kinds[is_stuff]):
        here = is_stuff & (kinds == kind)
        several.append((numbers[here][0], masks[here].any(0)))
    several += [(numbers[place], masks[place]) for place in np.flatnonzero(crowd)]
    named, parts = list[NDArray[np.float64]](), list[NDArray[np.bool_]]()
    for number, mask in several:
        own = mask & free
        if own.any():
            named.append(number)
            parts.append(own)
            free = free & ~own
    height, width = masks.shape[1:]
    return np.array(named).reshape(-1, 2), np.array(parts, bool).reshape(-1, height, width)


@dataclass(frozen=True, eq=False)
class Shared:
    """How many pixels segments have in common. `void`: of each that is found, those where nothing is said to be."""

    shared: Int[NDArray[np.int64], "found there"]
    found: Int[NDArray[np.int64], "found"]
    there: Int[NDArray[np.int64], "there"]
    void: Int[NDArray[np.int64], "found"]

    @property
    def iou(self) -> Float[NDArray[np.float64], "found there"]:
        """Over the pixels where something is said to be, as panopticapi has it."""
        whole = self.found[:, None] + self.there[None] - self.shared - self.void[:, None]
        shares: NDArray[np.float64] = np.divide(self.shared, whole, out=np.zeros(self.shared.shape), where=whole > 0)
        return shares


def shared(found: Parted, there: Parted) -> Shared | None:
    """None where nobody has said what is there. Pictures of two sizes share nothing."""
    if there["places"].shape == (0, 0):
        return None
    ours, theirs = len(found["numbers"]), len(there["numbers"])
    one, other = (some["places"].whole().astype(np.int64).clip(-1) + 1 for some in (found, there))
    if one.shape != other.shape:
        sizes = [np.bincount(ids.ravel(), minlength=number + 1)[1:] for ids, number in ((one, ours), (other, theirs))]
        return Shared(np.zeros((ours, theirs), np.int64), sizes[0], sizes[1], np.zeros(ours, np.int64))
    table = np.bincount((one * (theirs + 1) + other).ravel(), minlength=(ours + 1) * (theirs + 1))
    table = table.reshape(ours + 1, theirs + 1)
    return Shared(table[1:, 1:], table[1:].sum(1), table[:, 1:].sum(0), table[1:, 0])
