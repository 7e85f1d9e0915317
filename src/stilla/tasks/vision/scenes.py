"""Pictures with their masks as both sides see them: changed alike, the mask never smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from stilla.errors import DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.vision.masks import Ids, Masks
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.pixels import Processor

_KEEP = 2**29  # bytes of finished pictures that a split may keep in memory


@dataclass(frozen=True)
class Change:
    """How a picture is changed. `box`: what is seen of it, (left, top, right, bottom) as fractions of its sides."""

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirrored: bool = False
    brightness: float = 1.0
    contrast: float = 1.0

    @classmethod
    def drawn(cls, seed: Sequence[int], *, flips: bool) -> Change:
        """70 to 100 % of each side, a little brighter or darker; the same seed gives the same change."""
        generator = np.random.default_rng(seed)
        draw = generator.uniform
        wide, high = draw(0.7, 1.0, size=2)
        left, top = draw(0, 1 - wide), draw(0, 1 - high)
        brightness, contrast = draw(0.8, 1.2, size=2)
        return cls((left, top, left + wide, top + high), bool(flips and draw() < 0.5), brightness, contrast)

    def of_picture(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """Of the same size."""
        if self == Change():
            return picture
        width, height = picture.size
        box = (self.box[0] * width, self.box[1] * height, self.box[2] * width, self.box[3] * height)
        seen = picture.resize(picture.size, PIL.Image.Resampling.BICUBIC, box)
        if self.mirrored:
            seen = seen.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        levels = (np.arange(256) * self.brightness - 127.5) * self.contrast + 127.5
        return seen.point(levels.clip(0, 255).round().astype(int).tolist() * 3)

    def of_mask(self, classes: NDArray[Any], grid: tuple[int, int]) -> NDArray[Any]:
        """(rows, columns) what stands in the middle of each place of the grid; nothing is made between two classes."""
        left, top, right, bottom = self.box
        rows, columns = (_middles(begin, end, count, size) for begin, end, count, size in (
            (top, bottom, grid[0], classes.shape[0]), (left, right, grid[1], classes.shape[1])))
        found: NDArray[Any] = classes[np.ix_(rows, columns[::-1] if self.mirrored else columns)]
        return found


def _middles(begin: float, end: float, count: int, size: int) -> NDArray[np.int64]:
    places = (begin + (np.arange(count) + 0.5) / count * (end - begin)) * size
    return np.clip(places.astype(np.int64), 0, size - 1)


class Scenes:
    """Examples of a split, made anew whenever they are asked for, or kept where nothing changes and they fit into memory."""

    def __init__(
        self, pictures: Pictures, masks: Masks | None, keys: NDArray[np.int64], known: NDArray[np.bool_], ids: Ids,
        student: Processor, teacher: Processor, stride: int, *, seed: int | None, flips: bool = False,
        seen: tuple[Pictures, Pictures] | None = None,
    ) -> None:
        """known: (examples,) which somebody has labelled. teacher: the student's own where it sees the same. seed: of what is
        changed at random; None for nothing. seen: what of each example student and teacher see in place of its picture, of
        whatever size."""
        self.seen = (pictures, pictures) if seen is None else seen
        self.pictures, self.masks, self.keys, self.known, self.ids = pictures, masks, keys, known, ids
        self.student, self.teacher, self.seed, self.flips = student, teacher, seed, flips
        # shared, so that the loader's processes see it change
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        ours, theirs, _, _ = self._made(0, (1, 1))
        height, width = ours.shape[-2:]
        self.grid = (-(-height // stride), -(-width // stride))
        self.kept: tuple[NDArray[Any], ...] | None = None
        if seed is None:
            self._keep(ours, theirs)

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, positions: Sequence[int]) -> tuple[NDArray[Any], ...]:
        """(examples, ...) of the student's bytes, the teacher's (one array if they are shared), classes on the grid, and
        (height, width) of the pictures."""
        if self.kept is not None:
            some = [one[list(positions)] for one in self.kept]
            return (some[0], *some) if len(some) == 3 else tuple(some)
        made = list(zip(*(self._made(position, self.grid) for position in positions)))
        ours = np.stack(made[0])
        return ours, ours if self.shared else np.stack(made[1]), np.stack(made[2]), np.array(made[3])

    @property
    def shared(self) -> bool:
        return self.teacher is self.student

    def _made(
        self, position: int, grid: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int16], tuple[int, int]]:
        key = int(self.keys[position])
        change = Change() if self.seed is None else Change.drawn((self.seed, int(self.epoch), key), flips=self.flips)
        own, other = self.seen
        seen = change.of_picture(_read(own, key))
        width, height = seen.size if own is self.pictures else self.pictures.size(key)
        ours = self.student.geometry(seen)
        if other is not own:
            seen = change.of_picture(_read(other, key))
        theirs = ours if self.shared else self.teacher.geometry(seen)
        classes = np.full(grid, NO_ANSWER, np.int16)
        if self.masks is not None and self.known[position]:
            classes = change.of_mask(self.ids.encoded(self.masks.ids(key)), grid).astype(np.int16)
        return ours, theirs, classes, (height, width)

    def _keep(self, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        """A picture is then decoded and resized once, not once per epoch."""
        count = len(self.keys)
        sides = (ours,) if self.shared else (ours, theirs)
        if count * (sum(one.nbytes for one in sides) + 2 * self.grid[0] * self.grid[1]) > _KEEP:
            return
        kept = [np.empty((count, *one.shape), one.dtype) for one in sides]
        classes, sizes = np.empty((count, *self.grid), np.int16), np.empty((count, 2), np.int64)
        for position in tracked(range(count), "reading pictures and masks"):
            *made, classes[position], sizes[position] = self._made(position, self.grid)
            for array, one in zip(kept, made):
                array[position] = one
        self.kept = (*kept, classes, sizes)


def _read(pictures: Pictures, key: int) -> PIL.Image.Image:
    try:
        return pictures.rgb(key)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{pictures.name(key)} cannot be read: {error}") from error
