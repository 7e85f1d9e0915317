"""Pictures of many sizes on canvases of one: an example is the same whatever stands beside it in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import CompatibilityError, DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.vision.detectors import Reader, inputs_of
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.pixels import Processor

Size = tuple[int, int]

_KEEP = 2**29
"""Bytes of finished pictures that a split may keep in memory."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A reader, and the height and width that all of its pictures get: those of the largest, zeros below and to the right.

    Boxes are shares of the picture and not of the canvas, as the models' own post-processing takes them.
    """

    reader: Reader
    pixels: Processor
    height: int
    width: int

    @classmethod
    def of(cls, reader: Reader, sizes: Iterable[Size]) -> Canvas:
        """`sizes`: width and height of all pictures that the models of a run will see.

        Raises:
            CompatibilityError: they come out in several sizes, and the model does not know where a picture ends; or in one
            that it cannot read.
        """
        several = sorted(set(sizes))
        pixels = Processor(reader.processor, PIL.Image.new("RGB", several[0]))
        made = {size: pixels.geometry(PIL.Image.new("RGB", size)).shape[1:] for size in several}
        if len(set(made.values())) > 1 and not reader.masked:
            one, other = sorted(set(made.values()))[:2]
            raise CompatibilityError(
                f"the image processor leaves pictures of different sizes, {one[0]} x {one[1]} and {other[0]} x {other[1]}, "
                "and the model reads no mask that says where a picture ends, so that boxes would be shares of whatever "
                "stands beside it. Set size to {height, width} in its preprocessor_config.json")
        height, width = (max(one[axis] for one in made.values()) for axis in (0, 1))
        if any(side // reader.patch % reader.step for side in (height, width)):
            pixels_of = reader.patch * reader.step
            near = " x ".join(str(max(1, round(side / pixels_of)) * pixels_of) for side in (height, width))
            raise CompatibilityError(
                f"the image processor makes pictures of {height} x {width} pixels, and the model can read only those whose "
                f"sides are multiples of {pixels_of}, such as {near}. Set size to {{height, width}} in its "
                "preprocessor_config.json")
        return cls(reader, pixels, height, width)

    def batch(self, pictures: Sequence[NDArray[Any]]) -> dict[str, Tensor]:
        """What the model takes of what `Processor.geometry` gave."""
        values = np.zeros((len(pictures), pictures[0].shape[0], self.height, self.width), np.float32)
        mask = np.zeros((len(pictures), self.height, self.width), np.int64)
        for place, one in enumerate(pictures):
            height, width = one.shape[1:]
            if height > self.height or width > self.width:
                raise CompatibilityError(f"a picture of {height} x {width} pixels, as the image processor leaves it, is "
                                         f"larger than all that were looked at ({self.height} x {self.width})")
            values[place, :, :height, :width] = self.pixels.finish(one[None])[0]
            mask[place, :height, :width] = 1
        return dict(inputs_of(torch.from_numpy(values), torch.from_numpy(mask), self.reader))


class Source:
    """Pictures of a split as both sides read them; kept in memory as far as they fit."""

    def __init__(
        self, pictures: Pictures, others: Pictures, keys: NDArray[np.int64], student: Canvas, teacher: Canvas
    ) -> None:
        """others: what the teacher sees; the same object where it is the same."""
        self.pictures, self.others = pictures, others
        self.keys, self.student, self.teacher = keys, student, teacher
        self._kept: list[list[NDArray[Any]]] = []
        first = self._read(0)
        if sum(one.nbytes for one in first) * len(keys) <= _KEEP:
            self._kept = [self._read(place) for place in tracked(range(len(keys)), "reading pictures")]

    def batch(self, places: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the student takes, and the teacher; the same object where it is the same."""
        some = [self._kept[place] if self._kept else self._read(place) for place in places]
        ours = self.student.batch([one[0] for one in some])
        return ours, ours if self.teacher is self.student else self.teacher.batch([one[1] for one in some])

    def _read(self, place: int) -> list[NDArray[Any]]:
        picture = self._picture(self.pictures, place)
        ours = self.student.pixels.geometry(picture)
        if self.teacher is self.student:
            return [ours]
        seen = picture if self.others is self.pictures else self._picture(self.others, place)
        return [ours, self.teacher.pixels.geometry(seen)]

    def _picture(self, pictures: Pictures, place: int) -> PIL.Image.Image:
        key = int(self.keys[place])
        try:
            return pictures.rgb(key)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{pictures.name(key)} cannot be read: {error}") from error


def sizes_of(pictures: Pictures) -> dict[int, Size]:
    """Width and height by row, of those whose header can be read."""
    found = {}
    for row in tracked(range(len(pictures)), "measuring pictures"):
        try:
            found[row] = pictures.size(row)
        except (OSError, SyntaxError, ValueError):
            continue
    return found


