"""Objects of pictures with a mask each, kept small, and how much masks have in common."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray


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
