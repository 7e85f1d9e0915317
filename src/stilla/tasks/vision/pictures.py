"""Pictures of a column: read with PIL, checked, changed at random, and shown."""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset, Image, Value
from PIL import ImageOps

from stilla.data import rows_as_read
from stilla.errors import brief
from stilla.runtime.narrate import tracked
from stilla.tasks.vision import deep_pictures

logger = logging.getLogger(__name__)

MOST_PIXELS = 100_000_000
"""Of a picture, by its header: more are refused before anything is decoded (10,000 x 10,000 take 300 MB as RGB)."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that exchange width and height."""
_AT_ONCE = 256
_LARGE = 2**24  # pixels; larger ones are checked one at a time, others side by side
_ONE_BY_ONE = threading.Lock()
_USUAL = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
# none of those that start a program (EPS) or read other files


def holds_pictures(feature: Any) -> bool:
    """A picture column of `datasets`, encoded bytes, or `{bytes, path}` as other tools write them."""
    if isinstance(feature, dict):
        return "bytes" in feature
    if isinstance(feature, Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, Image)


@dataclass(frozen=True)
class Pictures:
    """The encoded pictures of a split."""

    rows: Dataset
    """One column of {bytes, path}."""
    column: str

    @classmethod
    def of(cls, split: Dataset, column: str) -> Pictures:
        rows = split.select_columns([column]).with_format(None)
        return cls(rows.cast_column(column, Image(decode=False)), column)

    def __len__(self) -> int:
        return len(self.rows)

    def rgb(self, row: int) -> PIL.Image.Image:
        """One picture as RGB, upright.

        Raises:
            OSError: it cannot be read.
        """
        with opened(self.rows[int(row)][self.column]) as picture:
            return as_rgb(picture)

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of one picture, upright, by its header alone.

        Raises:
            OSError: it cannot be read.
        """
        return size_of(self.rows[int(row)][self.column])

    def broken(self) -> dict[int, str]:
        """Rows whose pictures cannot be read, and why; each is decoded once, small where that is enough."""
        found: dict[int, str] = {}
        with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
            for start in tracked(range(0, len(self), _AT_ONCE), "checking pictures"):
                stored = self.rows[start : start + _AT_ONCE][self.column]
                reasons = enumerate(pool.map(why_broken, stored), start)
                found.update({row: reason for row, reason in reasons if reason is not None})
        return found

    def digests(self) -> Iterator[bytes]:
        """A hash of every picture's size and pixels, however it is stored."""
        with ThreadPoolExecutor() as pool:
            for start in tracked(range(0, len(self), _AT_ONCE), "looking for pictures that are measured"):
                yield from pool.map(_digest, self.rows[start : start + _AT_ONCE][self.column])

    def name(self, row: int) -> str:
        """Where the picture came from, as far as the data say."""
        stored = self.rows[int(row)][self.column]
        return f"row {rows_as_read(self.rows, [row])[0]}" + (f" ({stored['path']})" if stored and stored["path"] else "")


def undecoded(split: Dataset, columns: Sequence[str]) -> Dataset:
    """The same, with these columns of pictures as they are stored."""
    for column in columns:
        split = split.cast_column(column, Image(decode=False))
    return split


def size_of(stored: dict[str, Any] | None) -> tuple[int, int]:
    """Width and height, upright, by the header alone.

    Raises:
        OSError: it cannot be read.
    """
    with opened(stored) as picture:
        try:
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
        except (SyntaxError, ValueError, KeyError, TypeError, struct.error):  # as for `_upright`
            turned = False
        return (picture.height, picture.width) if turned else picture.size


def opened(stored: dict[str, Any] | None) -> PIL.Image.Image:
    """A picture whose header alone has been read; refused where decoding would take too much memory."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise OSError("there is no picture")
    if stored["bytes"] is None and not os.path.isfile(stored["path"]):
        raise OSError("there is no such file")
    source = stored["path"] if stored["bytes"] is None else BytesIO(stored["bytes"])
    picture = PIL.Image.open(source, formats=_formats())
    width, height = picture.size
    if width * height > MOST_PIXELS:
        picture.close()
        raise OSError(f"{width} x {height} pixels are more than the {MOST_PIXELS:,} that are decoded; make it smaller")
    return picture


@functools.cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    return tuple(name for name in _FORMATS if name in PIL.Image.OPEN)


def why_broken(stored: dict[str, Any] | None) -> str | None:
    """Why a picture cannot be read; it is decoded, small where that is enough."""
    try:
        with opened(stored) as picture, _turn(picture):
            if picture.mode in _USUAL:
                picture.draft("RGB", (1, 1))  # a JPEG is then read whole but computed at an eighth of its size
                picture.load()
            else:
                as_rgb(picture)
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError and others
        return unread(error)
    return None


def unread(error: Exception) -> str:
    """In words why a picture cannot be read, of what was raised."""
    return "not a picture" if isinstance(error, PIL.UnidentifiedImageError) else brief(str(error) or repr(error), 300)


def _digest(stored: dict[str, Any] | None) -> bytes:
    """Of what cannot be read, one that no picture has."""
    try:
        with opened(stored) as picture, _turn(picture):
            seen = as_rgb(picture)
            return hashlib.blake2b(f"{seen.size} ".encode() + seen.tobytes(), digest_size=16).digest()
    except Exception:  # as for `why_broken`
        return b"broken"


def _turn(picture: PIL.Image.Image) -> AbstractContextManager[object]:
    """Large pictures are decoded one after the other."""
    return _ONE_BY_ONE if picture.width * picture.height > _LARGE else nullcontext()


def as_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Upright RGB: grey repeated, 16 and 32 bits and fractions scaled to 8, transparency on white (as pages show it).

    Raises:
        OSError: it cannot be decoded, or not be shown as RGB.
    """
    inverted = deep_pictures.white_is_zero(picture)
    bits = deep_pictures.bits(picture)
    picture = _upright(picture)
    if picture.mode == "RGB":
        picture.load()
        return picture
    if picture.mode.startswith(("I", "F")):
        picture = deep_pictures.as_grey(picture, bits, inverted)
    if picture.mode == "LAB":
        raise OSError("its colours are stored as LAB; save it as RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):  # of what says how it is turned, not of the picture
        return picture


def light(picture: PIL.Image.Image, seed: Sequence[int]) -> PIL.Image.Image:
    """A slightly different picture of the same size: cut to 85 to 100 % of each side, brighter, more
    contrast.

    Nothing is mirrored: digits, letters and signs would become others. The same seed gives the same picture.
    """
    draw = np.random.default_rng(seed).uniform
    width, height = picture.size
    wide, high = width * draw(0.85, 1), height * draw(0.85, 1)
    left, top = draw(0, width - wide), draw(0, height - high)
    box = (left, top, left + wide, top + high)
    picture = picture.resize(picture.size, PIL.Image.Resampling.BICUBIC, box)
    brightness, contrast = draw(0.8, 1.2, size=2)
    levels = (np.arange(256) * brightness - 127.5) * contrast + 127.5
    return picture.point(levels.clip(0, 255).round().astype(int).tolist() * 3)


def data_uri(picture: PIL.Image.Image, longest: int) -> str:
    """The picture for a page, at most `longest` pixels wide and high; as PNG where it is small and sharp."""
    small = picture.copy()
    small.thumbnail((longest, longest))
    kind = "PNG" if max(picture.size) <= 64 else "JPEG"
    written = BytesIO()
    small.save(written, kind, **({} if kind == "PNG" else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"
