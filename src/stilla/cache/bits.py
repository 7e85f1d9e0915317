"""Numbers in as few bits as they need: fixed widths, and sorted numbers by what separates them.

All streams are little-endian: bit j of a stream is bit j % 8 of byte j // 8.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CacheError

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int64]

# words of eight bytes are read and written as they lie in memory
assert sys.byteorder == "little", "stored knowledge is read and written on little-endian machines"


def width_of(largest: int) -> int:
    """Bits that numbers from 0 to `largest` need; at least 1."""
    return max(1, int(largest).bit_length())


def pack(values: Whole, width: int) -> Bytes:
    """Numbers of `width` bits (0 to 32) end to end; the last byte is filled with zeros.

    Raises:
        CacheError: a number that does not fit into `width` bits.
    """
    _refuse_width(width)
    if width == 0 or len(values) == 0:
        return np.zeros(0, np.uint8)
    if int(values.min()) < 0 or int(values.max()) >> width:
        raise CacheError(f"got numbers from {values.min()} to {values.max()}; {width} bits hold 0 to {2**width - 1}")
    # eight numbers fill `width` bytes exactly
    groups = -(-len(values) // 8)
    padded = np.zeros((groups, 8), np.uint64)
    padded.reshape(-1)[: len(values)] = values
    packed = np.zeros((groups, width + 8), np.uint8)
    for place in range(8):
        start, shift = divmod(place * width, 8)
        words = padded[:, place] << np.uint64(shift)
        packed[:, start : start + 5] |= words.view(np.uint8).reshape(groups, 8)[:, :5]
    return packed[:, :width].reshape(-1)[: size_of(len(values), width)].copy()


def unpack(packed: Bytes, width: int, count: int) -> Whole:
    """The first `count` numbers of `width` bits (0 to 32).

    Raises:
        CacheError: there are not so many.
    """
    _refuse_width(width)
    if len(packed) < size_of(count, width):
        raise CacheError(f"got {len(packed)} bytes; {count} numbers of {width} bits take {size_of(count, width)}")
    if width == 0 or count == 0:
        return np.zeros(count, np.int64)
    padded = np.zeros(size_of(count, width) + 8, np.uint8)
    padded[:-8] = packed[: len(padded) - 8]
    # the eight bytes from every byte on: a number of 32 bits at any bit lies within five of them
    words = np.ndarray((len(padded) - 7,), np.uint64, padded.data, strides=(1,))
    bits = np.arange(count, dtype=np.int64) * width
    numbers = (words[bits >> 3] >> (bits & 7).astype(np.uint64)) & np.uint64(2**width - 1)
    whole: Whole = numbers.astype(np.int64)
    return whole


def size_of(count: int, width: int) -> int:
    """Bytes of `count` numbers of `width` bits."""
    return -(-count * width // 8)


def pack_sorted(values: Whole, universe: int) -> Bytes:
    """Strictly increasing numbers below `universe`: at most 2 + log2(universe / count) bits each.

    Elias-Fano: the low bits as they are; of the high bits, how many numbers share each of their values, in unary.

    Raises:
        CacheError: numbers that do not increase, or lie outside.
    """
    if len(values) == 0:
        return np.zeros(0, np.uint8)
    if values[0] < 0 or values[-1] >= universe or (np.diff(values) <= 0).any():
        raise CacheError(f"expected strictly increasing numbers from 0 to {universe - 1}")
    low = _low_bits(len(values), universe)
    marks = np.zeros(_marks(len(values), universe, low), np.uint8)
    marks[(values >> low) + np.arange(len(values))] = 1
    return np.concatenate([pack(values & ((1 << low) - 1), low), np.packbits(marks, bitorder="little")])


def unpack_sorted(packed: Bytes, universe: int, count: int) -> Whole:
    """The `count` numbers that `pack_sorted` stored.

    Raises:
        CacheError: bytes that cannot have come from there.
    """
    if count == 0:
        return np.zeros(0, np.int64)
    low = _low_bits(count, universe)
    first = size_of(count, low)
    marks = np.unpackbits(packed[first : sorted_size(count, universe)], bitorder="little")
    places = np.flatnonzero(marks)
    if len(packed) < sorted_size(count, universe) or len(places) != count:
        raise CacheError(f"got {len(packed)} bytes with {len(places)} marks; expected {count} sorted numbers")
    return ((places - np.arange(count)) << low) | unpack(packed[:first], low, count)


def sorted_size(count: int, universe: int) -> int:
    """Bytes that `pack_sorted` takes, whatever the numbers are."""
    if count == 0:
        return 0
    low = _low_bits(count, universe)
    return size_of(count, low) + size_of(_marks(count, universe, low), 1)


def _low_bits(count: int, universe: int) -> int:
    return max(0, (universe // count).bit_length() - 1)


def _marks(count: int, universe: int, low: int) -> int:
    return count + ((universe - 1) >> low)


def _refuse_width(width: int) -> None:
    if not 0 <= width <= 32:
        raise CacheError(f"got a width of {width} bits; expected 0 to 32")
