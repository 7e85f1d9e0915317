"""A picture with masks drawn over it, for a person."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.vision.pictures import data_uri
from stilla.views import Overlays

_SHOWN = 128  # pixels
_STRENGTH = 0.55
_NAMED = 12  # classes in a legend
_GOLDEN = 0.618034  # of the circle: neighbours in a list get colours far from each other


def colours(classes: int) -> NDArray[np.uint8]:
    """(classes, 3): the first, most often the background, is black."""
    hues = [(place * _GOLDEN) % 1 for place in range(classes)]
    made = [colorsys.hls_to_rgb(hue, (0.5, 0.65, 0.35)[place % 3], 0.95) for place, hue in enumerate(hues)]
    made[:1] = [(0.0, 0.0, 0.0)]
    return np.array([[round(255 * one) for one in colour] for colour in made], np.uint8)


def overlaid(
    picture: PIL.Image.Image, masks: Mapping[str, NDArray[Any]], names: tuple[str, ...], point: tuple[int, int]
) -> Overlays:
    """The picture, and over it the classes that each subject says. `point`: row and column of the pixel that it is about."""
    scale = min(1.0, _SHOWN / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = np.asarray(picture.resize(size), np.float32)
    where = (int(point[0] * size[1] / picture.height), int(point[1] * size[0] / picture.width))
    palette = colours(len(names))
    drawn, seen = {}, set()
    for subject, classes in masks.items():
        rows, columns = (np.minimum(((np.arange(count) + 0.5) * side / count).astype(np.int64), side - 1)
                         for count, side in zip(size[::-1], classes.shape))
        some = classes[np.ix_(rows, columns)]
        seen |= set(np.unique(some[some != NO_ANSWER]).tolist())
        mixed = np.where((some == NO_ANSWER)[..., None], small,
                         (1 - _STRENGTH) * small + _STRENGTH * palette[some.clip(0)].astype(np.float32))
        drawn[subject] = _uri(_marked(mixed, where))
    legend = tuple((names[one], "#" + "".join(f"{part:02x}" for part in palette[one])) for one in sorted(seen)[:_NAMED])
    return Overlays(_uri(_marked(small, where)), drawn, legend)


def _marked(pixels: NDArray[np.float32], where: tuple[int, int]) -> NDArray[np.float32]:
    """With a white square around the place, and a black one around that."""
    marked = pixels.copy()
    for reach, value in ((4, 0), (3, 255)):
        top, left = max(0, where[0] - reach), max(0, where[1] - reach)
        bottom, right = (min(side - 1, one + reach) for side, one in zip(pixels.shape, where))
        marked[[top, bottom], left : right + 1] = value
        marked[top : bottom + 1, [left, right]] = value
    return marked


def _uri(pixels: NDArray[np.float32]) -> str:
    return data_uri(PIL.Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)), _SHOWN)
