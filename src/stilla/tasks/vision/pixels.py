"""What models see of pictures: image processors, both sides of a batch, and what is kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.turns import Turns
from stilla.tasks.vision.fresh import Mix, View
from stilla.tasks.vision.pictures import Pictures, light
from stilla.tasks.vision.sections import Augment

_KEEP = 2**29  # bytes of finished pictures that a split may keep in memory


class Processor:
    """An image processor in two steps: geometry, which gives bytes, and values, which are a product and a
    sum.

    Pictures can then be kept as bytes, a quarter of the memory, and a batch is finished at once. Where the
    two steps do not give what the processor itself gives, `exact` is False and its own floats are used
    instead.
    """

    def __init__(self, processor: Any, sample: PIL.Image.Image) -> None:
        self.processor = processor
        if one_step(processor):
            self.grey, self.exact = False, False
            return
        self.grey = len(_per_channel(processor.image_mean)) == 1
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (_per_channel(processor.image_mean), _per_channel(processor.image_std))
        if not processor.do_normalize:
            mean, std = np.zeros(1), np.ones(1)
        self.factor = (scale / std).astype(np.float32).reshape(1, -1, 1, 1)
        self.offset = (-mean / std).astype(np.float32).reshape(1, -1, 1, 1)
        self.exact = True
        whole = self.floats(sample)
        bytes_ = self.geometry(sample)
        self.exact = bytes_.dtype == np.uint8 and bool(
            np.allclose(self.finish(bytes_[None])[0], whole, rtol=1e-4, atol=1e-5)
        )

    def geometry(self, picture: PIL.Image.Image) -> NDArray[Any]:
        """(channels, height, width) bytes; final floats where the steps cannot be told apart."""
        if not self.exact:
            return self.floats(picture)
        found: NDArray[Any] = np.asarray(
            self.processor(self._seen(picture), do_rescale=False, do_normalize=False)["pixel_values"][0]
        )
        return found

    def finish(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """(batch, channels, height, width) of what `geometry` gave, as the model takes them; in that order in memory too."""
        # processors give views of (height, width, channels), and copies of views keep their order: tensors made of them
        # are "channels last", with which a convolution of 1 x 1 that leaves places out spoils memory in torch's backward
        pixels = np.ascontiguousarray(pixels)
        if not self.exact:
            return pixels
        finished: NDArray[np.float32] = pixels.astype(np.float32)
        finished *= self.factor
        finished += self.offset
        return finished

    def floats(self, picture: PIL.Image.Image) -> NDArray[np.float32]:
        """(channels, height, width) as the processor itself gives them."""
        return np.asarray(self.processor(self._seen(picture))["pixel_values"][0], np.float32)

    def _seen(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        return picture.convert("L") if self.grey else picture


def one_step(processor: Any) -> bool:
    """Whether it is taken as it is: transforms, of timm, which say no mean and give tensors of torch alone."""
    return "image_mean" not in processor.to_dict()


TRANSFORMING = """\
from PIL import Image
from transformers import AutoImageProcessor

processor = AutoImageProcessor.from_pretrained(".")  # needs timm and torchvision
inputs = processor([Image.open("picture.png").convert("RGB")], return_tensors="pt")
inputs = {name: values.numpy() for name, values in inputs.items()}
"""
"""How such a one makes inputs of an exported file."""


def _per_channel(values: Any) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(values if values is not None else [0.0] * 3, np.float64))


def settings(processor: Any) -> dict[str, Any]:
    """What decides which values a model sees."""
    own = {name: value for name, value in processor.to_dict().items() if not name.startswith("_")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}


def geometry_of(processor: Any) -> dict[str, Any]:
    """What decides which part of the picture each place shows."""
    values = ("image_mean", "image_std", "do_normalize", "do_rescale", "rescale_factor", "resample")
    return {name: value for name, value in settings(processor).items() if name not in values}


def at_resolution(processor: Any, side: int) -> Any:
    """The same processor for pictures of another size: all that it measures in pixels, by the same factor.

    Raises:
        CompatibilityError: it says no size, or gives another one whatever it says.
    """
    sample = PIL.Image.new("RGB", (64, 48))
    before = np.asarray(processor(sample)["pixel_values"][0]).shape[-2:]
    if before == (side, side):
        return processor
    sizes = {name: dict(value) for name, value in processor.to_dict().items()
             if name in ("size", "crop_size") and isinstance(value, Mapping)}
    for measured in sizes.values():
        measured.update({name: round(pixels * side / before[-1]) for name, pixels in measured.items() if pixels is not None})
    made = type(processor).from_dict({**processor.to_dict(), **sizes}) if sizes else processor
    after = np.asarray(made(sample)["pixel_values"][0]).shape[-2:]
    if after != (side, side):
        raise CompatibilityError(f"resolution: got {side}, and {type(processor).__name__} makes pictures of {after[0]} x "
                                 f"{after[1]} pixels of it, from {before[0]} x {before[1]} before. Set its size in the "
                                 "student's preprocessor_config.json, and leave resolution out")
    return made


def same_part(one: Processor, other: Processor) -> bool:
    """Whether both see the same part of a picture, to a thirtieth of it, at whatever size: no processor is asked by name what
    it does; a ramp across and one down say which part is left of them."""
    return bool(np.allclose(_part(one), _part(other), atol=1 / 30))


def _part(processor: Processor) -> list[float]:
    """Left, right, top and bottom edge of what is seen of a picture, in shares of its width and height."""
    width, height = 192, 128
    across = np.tile(np.linspace(0, 255, width), (height, 1))
    down = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    black, white, *ramps = (processor.floats(PIL.Image.fromarray(np.repeat(one[..., None], 3, -1).round().astype(np.uint8)))
                            for one in (0 * across, 0 * across + 255, across, down))
    found: list[float] = []
    for axis, ramp in zip((2, 1), ramps, strict=True):
        levels = ((ramp - black) / (white - black))[0].mean(2 - axis)
        places = np.arange(len(levels)) + 0.5
        inner = slice(len(levels) // 4, len(levels) - len(levels) // 4)  # borders may be padded, or sharpened
        slope, start = np.polyfit(places[inner], levels[inner], 1)
        found += [start, start + slope * len(levels)]
    return found


class Source:
    """Pictures of a split as both sides see them, made anew whenever they are asked for."""

    def __init__(
        self,
        pictures: Pictures,
        keys: NDArray[np.int64],
        student: Processor,
        teacher: Processor,
        seed: int | None,
        *,
        how: Augment | None = None,
        views: int | None = None,
        others: Pictures | None = None,
    ) -> None:
        """`seed`: of the augmentation; None for none. `how` it changes pictures, where not lightly. `views`: how many there
        are of each; None: new ones every epoch. `others`: what the teacher sees in their place, where nothing changes."""
        self.others = others
        self.pictures, self.keys, self.seed = pictures, keys, seed
        self.how, self.turns = how, Turns(views)
        self.student, self.teacher = student, teacher

    def mix(self, position: int) -> Mix | None:
        """With what the picture at this position is mixed in this epoch."""
        view = self._drawn(position)
        return None if view is None else view.mix(position, len(self.keys))

    def picture(self, position: int) -> PIL.Image.Image:
        picture, view, mix = self._read(position), self._drawn(position), self.mix(position)
        if view is None:
            return picture if self.seed is None else light(picture, self._seeds(self.seed, int(self.keys[position])))
        picture = view.own(picture)
        return picture if mix is None else mix.of(picture, view.partners(self._read(mix.partner)))

    def _seeds(self, seed: int, key: int) -> tuple[int, ...]:
        view, candidate = self.turns.of(key)
        return (seed, view, key, candidate) if candidate else (seed, view, key)

    def _drawn(self, position: int) -> View | None:
        if self.seed is None or self.how is None:
            return None
        key = int(self.keys[position])
        view, candidate = self.turns.of(key)
        return View(self.how, self.seed, view, key, candidate)

    def _read(self, position: int, others: Pictures | None = None) -> PIL.Image.Image:
        key, pictures = int(self.keys[position]), others or self.pictures
        try:
            return pictures.rgb(key)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{pictures.name(key)} cannot be read: {error}") from error

    def pixels(self, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What `Processor.geometry` makes of the pictures for student and teacher; one array if shared."""
        seen = [self.picture(position) for position in positions]
        student = _stacked([self.student.geometry(picture) for picture in seen])
        if self.teacher is self.student:
            return student, student
        if self.others is not None:
            seen = [self._read(position, self.others) for position in positions]
        return student, _stacked([self.teacher.geometry(picture) for picture in seen])


class Kept:
    """The same, made once and kept in memory."""

    def __init__(self, source: Source, student: NDArray[Any], teacher: NDArray[Any]) -> None:
        self.student, self.teacher = source.student, source.teacher
        self.arrays = student, teacher

    def mix(self, position: int) -> None:
        """What is kept is as it was read."""

    def pixels(self, positions: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        student, teacher = self.arrays
        some = student[list(positions)]
        return some, some if teacher is student else teacher[list(positions)]


def keep(source: Source) -> Source | Kept:
    """Keep what fits: a picture is then decoded and resized once, not once per epoch."""
    student, teacher = source.pixels([0])
    shared = source.teacher is source.student
    each = student.nbytes + (0 if shared else teacher.nbytes)
    count = len(source.keys)
    if each * count > _KEEP:
        return source
    sides = (student,) if shared else (student, teacher)
    kept = [np.empty((count, *one.shape[1:]), one.dtype) for one in sides]
    for position in tracked(range(count), "reading pictures"):
        for array, pixels in zip(kept, source.pixels([position])):
            if pixels.shape[1:] != array.shape[1:]:
                raise _different_sizes(array.shape[1:], pixels.shape[1:])
            array[position] = pixels[0]
    return Kept(source, kept[0], kept[-1])


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise _different_sizes(shapes[0], shapes[1])
    return np.stack(arrays)


def _different_sizes(one: Sequence[int], other: Sequence[int]) -> CompatibilityError:
    return CompatibilityError(
        f"the image processor leaves pictures of different sizes, {tuple(one)} and {tuple(other)}: a batch "
        "needs one. Set size to {height, width}, or do_center_crop, in its preprocessor_config.json."
    )
