"""How well pictures are parted into segments: panoptic quality (Kirillov et al. 2019, arXiv:1801.00868).

As the authors' panopticapi counts it. Sums over pictures say it, so that resamples of the pictures are a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stilla.tasks.answers import Given
from stilla.tasks.vision.parted import Parted, shared

Part = Literal["pq", "sq", "rq"]
Array = NDArray[np.float64]
_HALF = 0.5
"""Segments of which more than that is common are one; there is no second one then."""


def counted(given: Given, references: Given, *, classes: int) -> Float[Array, "pictures numbers"]:
    """(pictures, 4 * classes): of each class the sum of IoUs of pairs, and how many are found, are not there, are missed."""
    found = [of_picture(one, there, classes) for one, there in zip(given, references, strict=True)]
    return np.array(found).reshape(len(found), 4 * classes)


def of_picture(found: Parted, there: Parted, classes: int) -> Float[Array, "4 classes"]:
    """Pixels where nothing is said to be are in no union; what lies in them, or in crowds of its class, by more than half is
    no mistake. Crowds are neither found nor missed."""
    both = shared(found, there)
    if both is None:
        return np.zeros((4, classes))
    ours, theirs = found["numbers"][:, 0].astype(np.int64), there["numbers"][:, 0].astype(np.int64)
    crowd = there["numbers"][:, 1] > 0
    alike = ours[:, None] == theirs[None]
    iou = both.iou
    pairs = alike & ~crowd[None] & (iou > _HALF)
    hit, met = pairs.any(1), pairs.any(0)
    excused = both.void + np.where(alike & crowd[None], both.shared, 0).sum(1)
    wrong = ~hit & (excused <= _HALF * both.found)
    return np.stack([
        np.bincount(theirs, np.where(pairs, iou, 0).sum(0), classes), np.bincount(theirs[met], minlength=classes),
        np.bincount(ours[wrong], minlength=classes), np.bincount(theirs[~met & ~crowd], minlength=classes)])


def by_class(sums: Array, part: Part = "pq") -> Float[Array, "classes"]:
    """Of each class SQ, the mean IoU of its pairs; RQ, found / (found + half of what is not there and what is missed); or PQ,
    their product. NaN of a class that is neither said nor there."""
    overlap, found, wrong, missed = sums.reshape(4, -1)
    segments = found + (wrong + missed) / 2
    segmentation = np.divide(overlap, found, out=np.zeros_like(overlap), where=found > 0)
    recognition = np.divide(found, segments, out=np.full_like(overlap, np.nan), where=segments > 0)
    both: dict[Part, Array] = {"sq": np.where(segments > 0, segmentation, np.nan), "rq": recognition,
                               "pq": segmentation * recognition}
    return both[part]


def mean(sums: Array, part: Part, classes: Sequence[int]) -> float:
    """Over those of these classes that are said or there; NaN where none is."""
    values = by_class(sums, part)[list(classes)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
