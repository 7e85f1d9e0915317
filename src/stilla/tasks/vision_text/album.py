"""The pictures of a split's examples: one each, or several in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
from datasets import Dataset, Image, List

from stilla.data import rows_as_read
from stilla.errors import DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.vision.pictures import as_rgb, holds_pictures, opened, size_of, why_broken

_AT_ONCE = 64
NONE = "it has no picture"


def holds_album(feature: Any) -> bool:
    """Pictures, or lists of them."""
    return holds_pictures(feature) or (isinstance(feature, List) and holds_pictures(feature.feature))


def undecoded(split: Dataset, column: str) -> Dataset:
    """The split with the pictures as they are stored."""
    several = isinstance(split.features[column], List)
    return split.cast_column(column, List(Image(decode=False)) if several else Image(decode=False))


@dataclass(frozen=True)
class Album:
    """`rows`: one column of {bytes, path}, or of lists of them."""

    rows: Dataset
    column: str

    @classmethod
    def of(cls, split: Dataset, column: str) -> Album:
        return cls(undecoded(split.select_columns([column]).with_format(None), column), column)

    def stored(self, row: int) -> list[dict[str, Any]]:
        """The pictures of an example as they are stored."""
        return _listed(self.rows[int(row)][self.column])

    def sizes(self, row: int) -> list[tuple[int, int]]:
        """Width and height of each, by their headers.

        Raises:
            OSError: one cannot be read.
        """
        return [size_of(one) for one in self.stored(row)]

    def look(self, row: int) -> tuple[list[PIL.Image.Image], bytes]:
        """The pictures of an example as RGB, upright, and a hash of what is stored of them.

        Raises:
            DataError: one cannot be read.
        """
        seen, digest = list[PIL.Image.Image](), hashlib.blake2b(digest_size=16)
        for one in self.stored(row):
            try:
                raw: bytes = one["bytes"] if one["bytes"] is not None else Path(one["path"]).read_bytes()
                digest.update(hashlib.blake2b(raw).digest())
                with opened({"bytes": raw, "path": one["path"]}) as picture:
                    seen.append(as_rgb(picture))
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{self.name(row)} cannot be read: {error}") from error
        return seen, digest.digest()

    def broken(self) -> dict[int, str]:
        """Rows that have no picture, or one that cannot be read, and why; each is decoded once."""
        found: dict[int, str] = {}
        with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
            for start in tracked(range(0, len(self.rows), _AT_ONCE), "checking pictures"):
                some = [_listed(one) for one in self.rows[start : start + _AT_ONCE][self.column]]
                whose = [start + place for place, several in enumerate(some) for _ in several]
                reasons = pool.map(why_broken, (one for several in some for one in several))
                for row, reason in zip(whose, reasons, strict=True):
                    if reason is not None:
                        found.setdefault(row, reason)
                found.update({start + place: NONE for place, several in enumerate(some) if not several})
        return found

    def digests(self) -> Iterator[bytes]:
        """Of each example a hash of its pictures, however they are stored; of broken ones one that no other has."""
        for row in tracked(range(len(self.rows)), "looking for pictures that are measured"):
            try:
                seen, _ = self.look(row)
            except DataError:
                yield b"broken"
                continue
            digest = hashlib.blake2b(digest_size=16)
            for one in seen:
                digest.update(f"{one.size} ".encode() + one.tobytes())
            yield digest.digest()

    def name(self, row: int) -> str:
        """Where the first picture came from, as far as the data say."""
        first = next((one["path"] for one in self.stored(row) if one["path"]), None)
        return f"row {rows_as_read(self.rows, [row])[0]}" + (f" ({first})" if first else "")


def _listed(value: Any) -> list[dict[str, Any]]:
    """Of one picture, several or none; what is null is no picture."""
    some = value if isinstance(value, list) else [value]
    return [one for one in some if one is not None and not one["bytes"] is one["path"] is None]
