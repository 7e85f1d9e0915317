"""Pictures of a column: read with PIL, checked, changed at random, and shown."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset, Image, Value
from PIL import ImageOps

from stilla.data import rows_as_read
from stilla.runtime.narrate import tracked

logger = logging.getLogger(__name__)

_AT_ONCE = 256


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
        return as_rgb(_opened(self.rows[int(row)][self.column]))

    def broken(self) -> dict[int, str]:
        """Rows whose pictures cannot be read, and why; each is decoded once, small where that is enough."""
        found: dict[int, str] = {}
        with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
            for start in tracked(range(0, len(self), _AT_ONCE), "checking pictures"):
                stored = self.rows[start : start + _AT_ONCE][self.column]
                reasons = enumerate(pool.map(_why_broken, stored), start)
                found.update({row: reason for row, reason in reasons if reason is not None})
        return found

    def name(self, row: int) -> str:
        """Where the picture came from, as far as the data say."""
        stored = self.rows[int(row)][self.column]
        return f"row {rows_as_read(self.rows, [row])[0]}" + (f" ({stored['path']})" if stored and stored["path"] else "")


def _opened(stored: dict[str, Any] | None) -> PIL.Image.Image:
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise OSError("there is no picture")
    return PIL.Image.open(stored["path"] if stored["bytes"] is None else BytesIO(stored["bytes"]))


def _why_broken(stored: dict[str, Any] | None) -> str | None:
    try:
        with _opened(stored) as picture:
            picture.draft("RGB", (1, 1))  # a JPEG is then read whole but computed at an eighth of its size
            picture.load()
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError and others
        return "not a picture" if isinstance(error, PIL.UnidentifiedImageError) else str(error) or repr(error)
    return None


def as_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Upright RGB: grey repeated, 16 bits scaled to 8, transparency on white (as pages show it)."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB":
        picture.load()
        return picture
    if picture.mode.startswith("I;16"):
        picture = PIL.Image.fromarray((np.asarray(picture, np.uint16) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


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
