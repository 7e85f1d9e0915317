"""Pictures changed at random: crops in other shapes, mirrored, in other colours, mixed with other pictures.

A teacher is asked about what the student sees, so a mixed picture needs no mixed label: blends (mixup, Zhang et al. 2018,
arXiv:1710.09412) and boxes of another picture (CutMix, Yun et al. 2019, arXiv:1905.04899) that the teacher answers, for long,
is how large teachers were handed on nearly whole (Beyer et al. 2022, arXiv:2106.05237; Wang et al. 2022, arXiv:2012.02909).

All that is drawn for an example follows from (seed, view, key, candidate) alone, its partner too, which is any example of
the split and not of the batch: so it is the same however a step is cut, by whatever process, and after a resume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from PIL import ImageEnhance

from stilla.tasks.vision.sections import Augment

_OWN, _PARTNER, _MIX = 0, 1, 2  # streams of chance, so that none moves another
_SHAPES = (3 / 4, 4 / 3)  # width by height of a crop, against the picture's own
_TRIES = 10


@dataclass(frozen=True)
class Mix:
    """A picture with another. share: of a blend, what is of the picture itself; box: what of it is the other's, (left, top,
    right, bottom) in shares of width and height; one of both."""

    partner: int
    """Its position among the split's examples."""
    share: float | None = None
    box: tuple[float, float, float, float] | None = None

    def of(self, picture: PIL.Image.Image, other: PIL.Image.Image) -> PIL.Image.Image:
        """The mixture, as large as the picture; the other one is brought to its size."""
        other = other.resize(picture.size, PIL.Image.Resampling.BICUBIC)
        if self.share is not None:
            return PIL.Image.blend(other, picture, self.share)
        assert self.box is not None
        width, height = picture.size
        left, top, right, bottom = (round(place * size) for place, size in zip(self.box, (width, height) * 2, strict=True))
        mixed = picture.copy()
        mixed.paste(other.crop((left, top, right, bottom)), (left, top))
        return mixed


@dataclass(frozen=True)
class View:
    """What is drawn for one example. `view`: the pass, or which of its views. `candidate`: which of several of that view."""

    how: Augment
    seed: int
    view: int
    key: int
    candidate: int = 0

    def mix(self, position: int, examples: int) -> Mix | None:
        """With which other of so many examples, at what share; None where the picture stays alone."""
        draw, how = self._draw(_MIX), self.how
        kind = draw.random()
        if self.candidate:  # candidates differ in what is drawn, and agree on whether a picture keeps its label
            kind = replace(self, candidate=0)._draw(_MIX).random()
        if kind >= how.mixup + how.cutmix or examples < 2:
            return None
        partner = (position + 1 + int(draw.integers(examples - 1))) % examples
        share = draw.random()
        if kind < how.mixup:
            return Mix(partner, share=share)
        side = math.sqrt(1 - share)
        x, y = draw.random(2)
        edges = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
        return Mix(partner, box=(left, top, right, bottom))

    def own(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """The example's picture, changed but not mixed."""
        return changed(picture, self.how, self._draw(_OWN))

    def partners(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """The other one's: in a form of its own, which no other example's mixture shows."""
        return changed(picture, self.how, self._draw(_PARTNER))

    def _draw(self, stream: int) -> np.random.Generator:
        which = (self.candidate,) if self.candidate else ()
        return np.random.default_rng((self.seed, self.view, self.key, stream, *which))


def changed(picture: PIL.Image.Image, how: Augment, draw: np.random.Generator) -> PIL.Image.Image:
    """Cut, mirrored and in other colours, as far as each is asked for. The crop keeps its resolution."""
    if how.crop < 1:
        box = _box(picture.size, how.crop, draw)
        size = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC, box)
    if how.flip and draw.random() < 0.5:
        picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    if how.colour:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(draw.uniform(1 - how.colour, 1 + how.colour))
    return picture


def _box(size: tuple[int, int], least: float, draw: np.random.Generator) -> tuple[float, float, float, float]:
    """A crop (left, top, right, bottom) of at least this share of the area, in another shape (Szegedy et al. 2015)."""
    width, height = size
    narrowest, widest = (math.log(one) for one in _SHAPES)
    for _ in range(_TRIES):
        area, shape = draw.uniform(least, 1), math.exp(draw.uniform(narrowest, widest))
        wide, high = width * math.sqrt(area * shape), height * math.sqrt(area / shape)
        if wide <= width and high <= height:
            left, top = draw.uniform(0, width - wide), draw.uniform(0, height - high)
            return left, top, left + wide, top + high
    return 0.0, 0.0, float(width), float(height)
