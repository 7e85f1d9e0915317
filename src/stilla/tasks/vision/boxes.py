"""Boxes in pictures: overlap, and COCO's average precision (Lin et al. 2014, arXiv:1405.0312) by picture.

Equal to pycocotools, ties and crowds included; a test holds it at 1e-12. How often each picture counts is an argument, so
that resamples of the pictures are measured without matching anything anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
"""Of the overlap from which on a detection is right."""
_RECALLS: Array = np.linspace(0, 1, 101)
_AT_MOST = 1 - 1e-10  # as pycocotools has it: an overlap of 1 is one at every threshold


def overlaps(
    found: Float[Array, "found 4"], there: Float[Array, "there 4"], crowd: NDArray[np.bool_] | None = None
) -> Float[Array, "found there"]:
    """IoU of boxes (left, top, right, bottom); with a crowd, the share of what was found that lies in it."""
    low = np.maximum(found[:, None, :2], there[None, :, :2])
    high = np.minimum(found[:, None, 2:], there[None, :, 2:])
    shared: Array = (high - low).clip(0).prod(-1)
    own, theirs = ((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (found, there))
    whole = own[:, None] + theirs[None] - shared
    if crowd is not None:
        whole = np.where(crowd[None], own[:, None], whole)
    shares: Array = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return shares


@dataclass(frozen=True, eq=False)
class Matched:
    """What counts of a picture. `classes`, `scores`: of each detection. `hits`: (detections, thresholds) 1: right; 0: wrong;
    -1: neither (in a crowd). `objects`: (classes,) how many there are to be found."""

    classes: Int[NDArray[np.int64], "found"]
    scores: Float[Array, "found"]
    hits: Int[NDArray[np.int8], "found thresholds"]
    objects: Int[NDArray[np.int64], "classes"]


@dataclass(frozen=True, eq=False)
class Beside:
    """What is found in a picture beside what is there, whatever its shape. `shares`: how much of both they share; of a crowd,
    how much of what was found lies in it."""

    classes: Int[NDArray[np.int64], "found"]
    scores: Float[Array, "found"]
    theirs: Int[NDArray[np.int64], "there"]
    crowd: NDArray[np.bool_]
    shares: Float[Array, "found there"]


def beside(found: Float[Array, "found 6"], there: Float[Array, "there 6"]) -> Beside:
    """Of boxes: left, top, right, bottom, class, and a score or whether it is a crowd."""
    crowd = there[:, 5] > 0
    return Beside(found[:, 4].astype(np.int64), found[:, 5].astype(np.float64), there[:, 4].astype(np.int64), crowd,
                  overlaps(found[:, :4], there[:, :4], crowd))


def matched(both: Beside, classes: int) -> Matched:
    """A picture's detections held against its objects.

    The surest detection of a class takes the object of its class that it overlaps most, if that is enough and nobody has
    taken it; a crowd, which any number may take, only where no object is left for it.
    """
    order = np.argsort(-both.scores, kind="stable")
    kinds, shares = both.classes[order], both.shares[order]
    hits = np.zeros((len(order), len(THRESHOLDS)), np.int8)
    for kind in np.intersect1d(kinds, both.theirs):
        rows, columns = np.flatnonzero(kinds == kind), np.flatnonzero(both.theirs == kind)
        hits[rows] = _hits(shares[np.ix_(rows, columns)], both.crowd[columns])
    return Matched(kinds, both.scores[order], hits, np.bincount(both.theirs[~both.crowd], minlength=classes))


def _hits(shares: Float[Array, "found there"], crowd: NDArray[np.bool_]) -> NDArray[np.int8]:
    enough = np.minimum(THRESHOLDS, _AT_MOST)
    hits = np.zeros((len(shares), len(enough)), np.int8)
    free = np.ones((len(enough), len(crowd)), bool)
    for row in np.flatnonzero(shares.max(1) >= enough[0]):
        fits = free & (shares[row] >= enough[:, None])
        for several, hit in ((fits & ~crowd, 1), (fits & crowd, -1)):
            here = several.any(1) & (hits[row] == 0)
            # the last of those that overlap as much, as pycocotools takes it
            best = len(crowd) - 1 - np.where(several, shares[row], -1.0)[:, ::-1].argmax(1)
            hits[row, here] = hit
            if hit > 0:
                free[here, best[here]] = False
    return hits


class Pictures(list[Matched]):
    """The statistics of many pictures, which are put in order once for all resamples."""

    @functools.cached_property
    def by_class(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int8]]]:
        """Of each class its detections, the surest first: the picture of each, and whether it is right."""
        if not self:
            return {}
        classes, scores = (np.concatenate(parts) for parts in zip(*((one.classes, one.scores) for one in self)))
        hits = np.concatenate([one.hits for one in self])
        pictures = np.repeat(np.arange(len(self)), [len(one.classes) for one in self])
        order = np.lexsort((-scores, classes))  # stable
        parts = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1) if len(order) else []
        return {int(classes[part[0]]): (pictures[part], hits[part]) for part in parts}

    @functools.cached_property
    def objects(self) -> Int[NDArray[np.int64], "pictures classes"]:
        return np.stack([one.objects for one in self]) if self else np.zeros((0, 0), np.int64)


def precisions(
    some: Iterable[Matched], counts: Int[NDArray[np.int64], "pictures"], thresholds: Sequence[int] | slice = slice(None)
) -> Float[Array, "classes"]:
    """The average precision of every class, mean over thresholds (by their place); NaN of one without objects."""
    pictures = some if isinstance(some, Pictures) else Pictures(some)
    wanted = counts @ pictures.objects
    found = np.full(len(wanted), np.nan)
    found[wanted > 0] = 0.0
    for kind, (of, hits) in pictures.by_class.items():
        if kind < len(wanted) and wanted[kind]:
            found[kind] = _average(hits[:, thresholds], counts[of], wanted[kind])
    return found


def _average(hits: NDArray[np.int8], counts: NDArray[np.int64], wanted: int) -> float:
    """Of one class: the precision at 101 recalls, each the best at that recall or beyond."""
    right, wrong = ((np.where(hits == one, counts[:, None], 0)).cumsum(0) for one in (1, 0))
    recall = right / wanted
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    values = np.zeros((hits.shape[1], len(_RECALLS)))
    for place in range(hits.shape[1]):
        at = np.searchsorted(recall[:, place], _RECALLS, side="left")
        values[place, at < len(best)] = best[at[at < len(best)], place]
    return float(values.mean())


def mean_precision(some: Any, counts: NDArray[np.int64], thresholds: Sequence[int] | slice = slice(None)) -> float:
    """COCO's mAP: the mean over classes that have objects; NaN where none has."""
    found = precisions(some, counts, thresholds)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")
