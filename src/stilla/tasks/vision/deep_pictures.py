"""Grey pictures of more than 8 bits, as 8: scaled by what their numbers can be, never cut off."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import TiffImagePlugin

logger = logging.getLogger(__name__)

_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_LEAST = 1e-30  # of one value everywhere


def bits(picture: PIL.Image.Image) -> int | None:
    """Of each number, where a TIFF says it."""
    said: Any = picture.tag_v2.get(_BITS) if isinstance(picture, TiffImagePlugin.TiffImageFile) else None
    first = said[0] if isinstance(said, tuple) and said else said
    return first if isinstance(first, int) else None


def white_is_zero(picture: PIL.Image.Image) -> bool:
    """Whether a TIFF counts from white to black; PIL turns only 8 bits round."""
    return isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == 0


def as_grey(picture: PIL.Image.Image, bits: int | None, inverted: bool) -> PIL.Image.Image:
    """8 bits of grey.

    16 bits (or as many as a TIFF says, up to 16) are scaled by their range. 32 bits rarely use theirs: the smallest range of
    8, 16 or 32 bits that holds the picture is taken. Fractions within 0 and 1 are scaled by 255, others, as negative numbers,
    by the picture's own least and largest value. What is a guess is said once.

    Raises:
        OSError: values that are no numbers.
    """
    values: NDArray[Any] = np.asarray(picture, np.uint16 if picture.mode.startswith("I;16") else None)
    low, high = _range(values, bits if picture.mode.startswith("I;16") else None)
    whole = values.dtype.kind != "f" and low == 0
    # the upper 8 bits, as PIL has it for colours of 16; or rounded
    scaled = values.astype(np.float32) * (256 / (high + 1)) if whole else np.rint(
        (values.astype(np.float32) - low) * (255 / max(high - low, _LEAST)))
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    return PIL.Image.fromarray(255 - grey if inverted else grey)


def _range(values: NDArray[Any], bits: int | None) -> tuple[float, float]:
    if values.dtype == np.uint16:
        return 0.0, 2.0 ** (bits if bits is not None and 8 < bits < 16 else 16) - 1
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():  # one NaN makes both so
        raise OSError("it holds values that are no numbers")
    if values.dtype.kind == "f":
        if low >= 0 and high <= 1:
            return 0.0, 1.0
    elif low >= 0:
        most = next(2**size - 1 for size in (8, 16, 31) if high < 2**size)
        _say(f"grey pictures of 32 bits are scaled by the smallest range of 8, 16 or 32 bits that holds them: 0 to {most}")
        return 0.0, float(most)
    _say("grey pictures with negative numbers, or fractions beyond 1, are each scaled by their own least and largest value")
    return low, high


@functools.cache
def _say(words: str) -> None:
    logger.warning("%s", words)
