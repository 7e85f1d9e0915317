"""Polygons and runs as pixels: against pycocotools, and by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stilla.errors import DataError
from stilla.tasks.vision.outlines import drawn, trouble


def _ring(draw: np.random.Generator, corners: int) -> list[float]:
    return (draw.random((corners, 2)) * [44, 34] - 6).ravel().tolist()  # also beyond the edges


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("seed", range(4))
def test_polygons_and_runs_are_those_of_pycocotools(seed: int) -> None:
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle")
    draw = np.random.default_rng(seed)
    width, height = 33, 22
    for _ in range(40):
        rings = [_ring(draw, int(draw.integers(3, 9))) for _ in range(int(draw.integers(1, 3)))]
        rings.append([round(one) for one in rings[0]])
        if trouble(rings, (width, height)) is not None:
            continue
        runs = mask.merge(mask.frPyObjects(rings, height, width))
        theirs = mask.decode(runs).astype(bool)
        np.testing.assert_array_equal(drawn(rings, (width, height)), theirs)
        written = {"size": [height, width], "counts": runs["counts"].decode()}
        np.testing.assert_array_equal(drawn(written, (width, height)), theirs)
        np.testing.assert_array_equal(drawn(json.dumps(written), (width, height)), theirs)


def test_a_square_and_runs_by_hand() -> None:
    square = np.zeros((4, 5), bool)
    square[1:3, 1:4] = True
    np.testing.assert_array_equal(drawn([[1, 1, 4, 1, 4, 3, 1, 3]], (5, 4)), square)
    np.testing.assert_array_equal(drawn([1, 1, 4, 1, 4, 3, 1, 3], (5, 4)), square)  # a single one without its list
    np.testing.assert_array_equal(drawn({"size": [4, 5], "counts": [5, 2, 2, 2, 2, 2, 5]}, (5, 4)), square)


@pytest.mark.parametrize(("outline", "words"), [
    ([[1, 1, 4, 1]], "expected polygons"), ([], "expected polygons"), (None, "expected polygons"),
    ([[1, 1, 4, 1, float("nan"), 3]], "expected polygons"), ("[[1, 1, 4, 1, 4]]", "expected polygons"),
    ([[30, 30, 40, 30, 40, 40]], "covers nothing"), ([[1, 1, 4, 1, 3, 1]], "covers nothing"),
    ({"size": [5, 4], "counts": [20]}, "runs are of 4 x 5 pixels, the picture has 5 x 4"),
    ({"size": [4, 5], "counts": [5, 2]}, "its runs are 7 pixels"), ({"size": [4, 5], "counts": "é"}, "no runs"),
    ({"size": [4, 5], "counts": [-1, 21]}, "no runs"),
])
def test_what_is_no_mask_of_its_picture_is_said(outline: Any, words: str) -> None:
    assert words in str(trouble(outline, (5, 4)))
    with pytest.raises(DataError, match=words):
        drawn(outline, (5, 4))
