"""Masks: pictures whose numbers are ids of classes. They are never shown as colours, smoothed or turned."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import PIL.Image
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import DataError, all_of
from stilla.runtime.narrate import tracked
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.vision.pictures import Pictures, opened, unread

MOST = 2**16
"""Ids are numbers below it: a PNG has 16 bits at most."""
_UNKNOWN = NO_ANSWER - 1
_LOSSY = frozenset({"JPEG", "MPO", "AVIF"})
_TURNED = frozenset({5, 6, 7, 8})  # of EXIF: width and height change places
_ORIENTATION = 0x0112
_AT_ONCE = 256


@dataclass(frozen=True)
class Ids:
    """What the numbers of masks mean. `classes`: by id the class's place in the models' order. `ignored`: ids of none.
    `reduced`: 0 is none either, and every other id (but the ignored ones) means the class of the id below it."""

    classes: Mapping[int, int]
    ignored: frozenset[int]
    reduced: bool = False

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        table = np.full(MOST, _UNKNOWN, np.int32)
        for one, place in self.classes.items():
            if 0 <= one + self.reduced < MOST:
                table[one + self.reduced] = place
        table[[one for one in self.ignored if 0 <= one < MOST]] = NO_ANSWER
        if self.reduced:
            table[0] = NO_ANSWER
        return table

    def encoded(self, ids: NDArray[np.uint16]) -> NDArray[np.int32]:
        """(height, width) classes, NO_ANSWER where there is none.

        Raises:
            DataError: ids that nobody has named.
        """
        found: NDArray[np.int32] = self._table[ids]
        if (found == _UNKNOWN).any():
            unknown = np.unique(ids[found == _UNKNOWN]).tolist()
            raise DataError(f"a mask holds {all_of(list(map(str, unknown[:8])))}, which no class is called by; known are "
                            f"{all_of([str(one + self.reduced) for one in sorted(self.classes)][:12])}")
        return found


def ids_of(picture: PIL.Image.Image) -> NDArray[np.uint16]:
    """(height, width) the numbers of a mask as they are stored: of a palette its places.

    Raises:
        OSError: it holds colours, or was stored with loss.
    """
    if picture.format in _LOSSY or picture.info.get("compression") == "jpeg":
        raise OSError(f"a {picture.format} {'compressed as JPEG ' * (picture.format == 'TIFF')}changes numbers, so that ids "
                      "appear that nobody wrote; store masks as PNG")
    values: NDArray[Any] = np.asarray(picture)
    if picture.mode in ("RGB", "RGBA"):
        if not (values[..., :1] == values[..., 1:3]).all():
            raise OSError(f"it holds colours ({picture.mode}); expected one number per pixel, the class's id (a grey or "
                          "palette PNG): replace each colour by its id")
        values = values[..., 0]
    elif picture.mode == "LA":
        values = values[..., 0]
    elif picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise OSError(f"it holds {picture.mode}; expected one whole number per pixel, the class's id")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < MOST:
        raise OSError(f"it holds numbers from {values.min()} to {values.max()}; expected ids from 0 to {MOST - 1}")
    return values.astype(np.uint16)


Read = Callable[[PIL.Image.Image], NDArray[Any]]
"""A mask -> (height, width) ids.

Raises:
    OSError: it holds none.
"""


@dataclass(frozen=True)
class Masks:
    """The encoded masks of a split, beside its pictures. `read`: how their numbers are stored."""

    stored: Pictures
    read: Read = ids_of

    @classmethod
    def of(cls, split: Dataset, column: str, read: Read = ids_of) -> Masks:
        return cls(Pictures.of(split, column), read)

    def ids(self, row: int) -> NDArray[Any]:
        """Raises:
            DataError: it cannot be read.
        """
        try:
            with opened(self.stored.rows[int(row)][self.stored.column]) as picture:
                return self.read(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"the mask of {self.stored.name(row)} cannot be used: {error}") from error


@dataclass(frozen=True)
class Looked:
    """What was seen in the masks of a split. `broken`: why rows cannot be used. `ids`: of the others, (pixels of each id) by
    row."""

    broken: Mapping[int, str]
    ids: Mapping[int, Mapping[int, int]]

    def with_id(self, one: int) -> list[int]:
        """The rows whose masks hold it."""
        return [row for row, found in self.ids.items() if one in found]

    def all(self) -> set[int]:
        return {one for found in self.ids.values() for one in found}


def look(split: Dataset, image: str, mask: str, read: Read = ids_of) -> Looked:
    """Every mask is decoded once, and held against the size of its picture. read: how its numbers are stored."""
    pictures, masks = Pictures.of(split, image), Pictures.of(split, mask)
    broken: dict[int, str] = {}
    ids: dict[int, Mapping[int, int]] = {}
    with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
        for start in tracked(range(0, len(split), _AT_ONCE), "looking at masks"):
            some = slice(start, start + _AT_ONCE)
            pairs = zip(pictures.rows[some][image], masks.rows[some][mask])
            for row, found in enumerate(pool.map(partial(_looked_at, read), pairs), start):
                if isinstance(found, str):
                    broken[row] = found
                else:
                    ids[row] = found
    return Looked(broken, ids)


def _looked_at(read: Read, pair: tuple[Any, Any]) -> str | Mapping[int, int]:
    """How many pixels of each id, or why the mask cannot be used. Of a picture that cannot be read others say so."""
    picture, mask = pair
    if mask is None or (mask["bytes"] is None and mask["path"] is None):
        return "there is no mask"
    try:
        with opened(mask) as one:
            size, ids = one.size, read(one)
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError and others
        return f"its mask: {unread(error)}"
    try:
        with opened(picture) as other:
            width, height = other.size
            turned = other.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # likewise
        return {}
    if size != ((height, width) if turned else (width, height)):
        return (f"its mask has {size[0]} x {size[1]} pixels and the picture {width} x {height}"
                f"{' (turned by its EXIF)' if turned else ''}")
    found, counts = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist()))


@dataclass(frozen=True)
class Packed:
    """Whole numbers from NO_ANSWER up, (height, width), in little memory: masks are large and plain."""

    shape: tuple[int, int]
    content: bytes

    @classmethod
    def of(cls, values: NDArray[Any]) -> Packed:
        height, width = values.shape
        return cls((height, width), zlib.compress(np.ascontiguousarray(values, np.int16).tobytes(), 1))

    def whole(self) -> NDArray[np.int16]:
        return np.frombuffer(zlib.decompress(self.content), np.int16).reshape(self.shape)


KeptT = TypeVar("KeptT")


class ReadOnce(Sequence[KeptT]):
    """What is right of so many examples, read by its place when it is asked for, and kept from then on."""

    def __init__(self, number: int, read: Callable[[int], KeptT]) -> None:
        self._number, self._read = number, read
        self._kept: dict[int, KeptT] = {}

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place = int(place) % len(self)
        if place not in self._kept:
            self._kept[place] = self._read(place)
        return self._kept[place]

    def __iter__(self) -> Iterator[KeptT]:
        return (self[place] for place in range(len(self)))


def references(masks: Masks | None, rows: Sequence[int | None], ids: Ids) -> ReadOnce[Packed]:
    """The classes of every pixel of some rows, kept small.

    `rows`: of the masks; None where nobody has labelled the example: of it nothing is known (0 x 0).
    """
    def read(place: int) -> Packed:
        row = rows[place]
        return Packed.of(np.zeros((0, 0), np.int32) if row is None or masks is None else ids.encoded(masks.ids(row)))

    return ReadOnce(len(rows), read)
