"""Average precision against pycocotools, and what its statistics allow."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stilla.tasks.vision import boxes
from stilla.tasks.vision.boxes import Pictures, beside, matched, mean_precision, overlaps, precisions

CLASSES = 4


def pictures(count: int = 40, seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Found and there: crowds, pictures without objects, without detections, without either, and equal scores."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        things = 0 if number % 7 == 0 else int(draw.integers(1, 8))
        low = draw.integers(0, 60, (things, 2))
        there = np.column_stack([low, low + draw.integers(4, 40, (things, 2)), draw.integers(0, CLASSES - 1, things),
                                 draw.random(things) < 0.2]).astype(float)
        guesses = np.repeat(there, 3, 0)
        guesses[:, :4] += draw.integers(-6, 7, (len(guesses), 4))
        guesses[:, 2:4] = np.maximum(guesses[:, 2:4], guesses[:, :2] + 1)
        guesses[:, 5] = draw.integers(1, 20, len(guesses)) / 20
        wild = np.column_stack([np.tile([1, 2, 30, 40], (4, 1)), draw.integers(0, CLASSES, 4), draw.random(4)])
        found = np.concatenate([guesses, wild]) if number % 5 else np.zeros((0, 6))
        made.append((found[np.argsort(-found[:, 5], kind="stable")], there))
    return made


def by_pycocotools(made: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[float, float, NDArray[Any]]:
    """mAP, AP at 0.5 and AP of each class, with sparse ids."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    ids = [3, 17, 40, 90]
    truth, said = [], []
    for number, (found, there) in enumerate(made):
        for one in there:
            size = one[2:4] - one[:2]
            truth.append({"id": len(truth) + 1, "image_id": 5 * number, "category_id": ids[int(one[4])],
                          "bbox": [*one[:2], *size], "area": float(size.prod()), "iscrowd": int(one[5])})
        said += [{"image_id": 5 * number, "category_id": ids[int(one[4])], "bbox": [*one[:2], *(one[2:4] - one[:2])],
                  "score": float(one[5])} for one in found]
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {"images": [{"id": 5 * number} for number in range(len(made))], "annotations": truth,
                         "categories": [{"id": one, "name": str(one)} for one in ids]}
        known.createIndex()
        run = cocoeval.COCOeval(known, known.loadRes(said), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, 2]
    each = [np.nan if (one := precision[:, :, kind]).max() < 0 else one.mean() for kind in range(len(ids))]
    return float(run.stats[0]), float(run.stats[1]), np.array(each)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    made = pictures(seed=seed)
    whole, half, each = by_pycocotools(made)
    found = Pictures(matched(beside(*one), CLASSES) for one in made)
    once = np.ones(len(made), np.int64)
    assert whole > 0.05
    assert mean_precision(found, once) == pytest.approx(whole, abs=1e-12)
    assert mean_precision(found, once, [0]) == pytest.approx(half, abs=1e-12)
    np.testing.assert_allclose(precisions(found, once), each, atol=1e-12)
    assert np.isnan(each[CLASSES - 1])  # found, and never there


def test_a_picture_that_counts_twice_is_as_good_as_two() -> None:
    made = pictures(20, 1)
    for found, _ in made:
        found[:, 5] += np.random.default_rng(len(found)).random(len(found)) * 1e-3  # no two have equal scores
        found[:] = found[np.argsort(-found[:, 5])]
    counts = np.random.default_rng(0).integers(0, 3, len(made))
    once = Pictures(matched(beside(*one), CLASSES) for one in made)
    again = Pictures(matched(beside(*made[row]), CLASSES) for row in np.repeat(np.arange(len(made)), counts))
    assert mean_precision(once, counts) == pytest.approx(mean_precision(again, np.ones(len(again), np.int64)), abs=1e-12)
    # a plain list, as slices and exchanged pictures come
    assert mean_precision([*once], counts) == mean_precision(once, counts)


def test_an_object_is_found_once_and_a_crowd_as_often_as_one_likes() -> None:
    there = np.array([[0, 0, 10, 10, 0, 0], [20, 20, 60, 60, 0, 1]], float)
    found = np.array([[0, 0, 10, 10, 0, 0.9], [0, 0, 10, 9, 0, 0.8], [22, 22, 30, 30, 0, 0.7], [30, 30, 40, 40, 0, 0.6]])
    one = matched(beside(found, there), 1)
    assert one.hits[:, 0].tolist() == [1, 0, -1, -1]
    assert one.objects.tolist() == [1]


def test_nothing_there_has_no_precision_and_nothing_found_has_none() -> None:
    nothing = np.zeros((0, 6))
    there = np.array([[0, 0, 10, 10, 1, 0]], float)
    assert np.isnan(mean_precision([matched(beside(nothing, nothing), 2)], np.ones(1, np.int64)))
    assert mean_precision([matched(beside(nothing, there), 2)], np.ones(1, np.int64)) == 0
    right = matched(beside(np.array([[0, 0, 10, 10, 1, 0.5]]), there), 2)
    assert mean_precision([right], np.ones(1, np.int64)) == pytest.approx(1)


def test_boxes_of_no_size_overlap_nothing() -> None:
    one = np.array([[1.0, 1, 1, 5]])
    assert overlaps(one, one).tolist() == [[0.0]]
    assert boxes.overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).item() == pytest.approx(1 / 3)
