"""Panoptic quality against panopticapi's algorithm, pixel by pixel, and its sums."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.vision import panoptic_quality
from stilla.tasks.vision.panoptic_quality import by_class, counted, mean, of_picture
from stilla.tasks.vision.parted import Parted, contested, disjoint, parted

CLASSES = 4
STUFF = (2, 3)


def picture(draw: np.random.Generator, *, crowds: bool, size: tuple[int, int] = (12, 14)) -> Parted:
    """Blocks of it, some of nobody; a few pixels noise, so that overlaps are of every kind."""
    coarse = draw.integers(0, 7, (4, 2)).repeat(3, 0).repeat(7, 1)
    coarse[draw.random(size) < 0.1] = draw.integers(0, 7)
    kinds = draw.integers(0, CLASSES, 7)
    numbers = np.column_stack([kinds, (draw.random(7) < 0.3) & ~np.isin(kinds, STUFF) if crowds else np.zeros(7)])
    kept = np.flatnonzero([(coarse == one).any() for one in range(7)] & (draw.random(7) < 0.9))
    return parted(numbers[kept].astype(float), np.array([coarse == one for one in kept]).reshape(-1, *size))


def by_hand(pairs: list[tuple[Parted, Parted]]) -> NDArray[np.float64]:
    """As panopticapi's `pq_compute_single_core` does it, on ids: 0 is nobody's."""
    stat = np.zeros((4, CLASSES))
    for found, there in pairs:
        pred, truth = (np.maximum(one["places"].whole().astype(int), -1) + 1 for one in (found, there))
        category = [{number + 1: int(kind) for number, (kind, _) in enumerate(one["numbers"])} for one in (found, there)]
        crowd = {number + 1 for number, (_, flag) in enumerate(there["numbers"]) if flag}
        cells = Counter((int(t), int(p)) for t, p in zip(truth.ravel(), pred.ravel()))
        area = [Counter(ids.ravel().tolist()) for ids in (pred, truth)]
        matched = set[tuple[str, int]]()
        for (t, p), common in cells.items():
            if t == 0 or p == 0 or t in crowd or category[1][t] != category[0][p]:
                continue
            iou = common / (area[0][p] + area[1][t] - common - cells.get((0, p), 0))
            if iou > 0.5:
                stat[0, category[1][t]] += iou
                stat[1, category[1][t]] += 1
                matched |= {("t", t), ("p", p)}
        for t, kind in category[1].items():
            if ("t", t) not in matched and t not in crowd:
                stat[3, kind] += 1
        for p, kind in category[0].items():
            if ("p", p) in matched:
                continue
            excused = cells.get((0, p), 0) + sum(cells.get((t, p), 0) for t in crowd if category[1][t] == kind)
            if excused / area[0][p] <= 0.5:
                stat[2, kind] += 1
    return stat


@pytest.mark.parametrize("crowds", [False, True])
def test_what_is_counted_is_what_panopticapi_counts(crowds: bool) -> None:
    draw = np.random.default_rng(int(crowds))
    there = [picture(draw, crowds=crowds) for _ in range(60)]
    found = [one if place % 4 == 0 else picture(draw, crowds=False) for place, one in enumerate(there)]
    sums = counted(found, there, classes=CLASSES).sum(0)
    expected = by_hand(list(zip(found, there)))
    np.testing.assert_allclose(sums.reshape(4, CLASSES), expected, rtol=1e-12)
    assert (expected > 0).all()  # hits, mistakes and misses of every class
    iou, tp, fp, fn = expected
    np.testing.assert_allclose(by_class(sums), iou / (tp + fp / 2 + fn / 2), rtol=1e-12)
    np.testing.assert_allclose(by_class(sums, "sq") * by_class(sums, "rq"), by_class(sums), rtol=1e-12)


def test_quality_is_of_sums_and_not_a_mean_of_pictures() -> None:
    draw = np.random.default_rng(3)
    there = [picture(draw, crowds=False) for _ in range(20)]
    found = [one if place % 2 else picture(draw, crowds=False) for place, one in enumerate(there)]
    metric = by_sums("pq", partial(counted, classes=CLASSES), partial(mean, part="pq", classes=range(CLASSES)))
    whole = metric.compute(found, there)
    assert metric.compute(found * 3, there * 3) == pytest.approx(whole, rel=1e-12)
    alone = [metric.compute([one], [other]) for one, other in zip(found, there)]
    assert abs(np.nanmean(alone) - whole) > 1e-3


def test_classes_that_are_neither_said_nor_there_count_nothing() -> None:
    numbers, mask = np.array([[1.0, 0.0]]), np.ones((1, 4, 4), bool)
    one = parted(numbers, mask)
    sums = of_picture(one, one, CLASSES).ravel()
    assert mean(sums, "pq", range(CLASSES)) == 1.0
    assert np.isnan(mean(sums, "pq", STUFF))
    nothing = parted(np.zeros((0, 2)), np.zeros((0, 4, 4), bool))
    assert mean(of_picture(nothing, one, CLASSES).ravel(), "pq", range(CLASSES)) == 0.0
    assert not of_picture(one, parted(np.zeros((0, 2)), np.zeros((0, 0, 0), bool)), CLASSES).any()  # nobody has said it
    other = parted(numbers, np.ones((1, 3, 4), bool))
    assert of_picture(other, one, 2)[:, 1].tolist() == [0, 0, 1, 1]  # an answer to another picture
    assert panoptic_quality.counted([], [], classes=CLASSES).shape == (0, 4 * CLASSES)


def test_half_of_a_segment_is_no_pair_and_what_lies_in_void_is_no_mistake() -> None:
    left, whole = np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool)
    left[0, :, :2] = True
    thing = np.array([[0.0, 0.0]])
    assert of_picture(parted(thing, left), parted(thing, whole), 1)[:, 0].tolist() == [0, 0, 1, 1]  # IoU is 0.5
    assert of_picture(parted(thing, whole), parted(thing, left), 1)[:, 0].tolist() == [1, 1, 0, 0]  # the rest is void
    right = parted(thing, ~left)
    assert of_picture(right, parted(thing, left), 1)[:, 0].tolist() == [0, 0, 0, 1]
    assert of_picture(right, parted(np.array([[0.0, 1.0]]), whole), 1)[:, 0].tolist() == [0, 0, 0, 0]  # in a crowd
    assert of_picture(right, parted(np.array([[1.0, 1.0]]), whole), 2)[:, 0].tolist() == [0, 0, 1, 0]  # of another class


def test_things_lie_before_stuff_stuff_of_a_class_is_one_and_what_is_contested_is_nobodys() -> None:
    masks = np.zeros((6, 1, 8), bool)
    for place, (start, end) in enumerate([(0, 4), (3, 5), (0, 6), (6, 7), (6, 8), (0, 8)]):
        masks[place, 0, start:end] = True
    numbers = np.array([[0, 0], [0, 0], [2, 0], [2, 0], [3, 0], [1, 1]], float)  # things, stuff, a crowd
    assert contested(numbers, masks, STUFF)[0].tolist() == [False] * 3 + [True] + [False] * 2 + [True, False]
    kinds, parts = disjoint(numbers, masks, STUFF)
    assert kinds.tolist() == [[0, 0], [0, 0], [2, 0], [3, 0]]  # nothing is left of the crowd
    assert [np.flatnonzero(part[0]).tolist() for part in parts] == [[0, 1, 2], [4], [5], [7]]
    assert parts.sum(0).max() == 1
