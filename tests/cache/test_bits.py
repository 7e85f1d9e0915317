"""Packed numbers come back as they were, in the bytes that were promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stilla.cache import bits
from stilla.errors import CacheError

VOCABULARIES = [2**17 - 1, 2**17, 2**17 + 1, 151_936, 262_144]


@pytest.mark.parametrize("width", range(1, 33))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_every_width_round_trips(width: int, count: int) -> None:
    values = np.random.default_rng(width).integers(0, 2**width, count)
    if count > 1:
        values[:2] = 0, 2**width - 1
    packed = bits.pack(values, width)
    assert len(packed) == math.ceil(count * width / 8)
    assert (bits.unpack(packed, width, count) == values).all()


def test_bits_lie_where_the_format_says() -> None:
    packed = bits.pack(np.array([0b101, 0b011, 0b111]), 3)
    assert packed.tolist() == [0b11_011_101, 0b1]


@pytest.mark.parametrize("size", VOCABULARIES)
def test_ids_of_any_vocabulary_round_trip(size: int) -> None:
    width = bits.width_of(size - 1)
    values = np.array([0, 1, size // 2, size - 2, size - 1])
    assert 2 ** (width - 1) < size <= 2**width
    assert (bits.unpack(bits.pack(values, width), width, 5) == values).all()


@pytest.mark.parametrize("size", [1, 2, 50, *VOCABULARIES])
@pytest.mark.parametrize("count", [1, 2, 12, 50, 1000])
def test_sorted_numbers_round_trip_in_the_promised_bytes(size: int, count: int) -> None:
    count = min(count, size)
    for seed in range(3):
        values = np.sort(np.random.default_rng(seed).choice(size, count, replace=False)).astype(np.int64)
        packed = bits.pack_sorted(values, size)
        assert len(packed) == bits.sorted_size(count, size)
        assert 8 * len(packed) <= count * (2 + math.log2(size / count)) + 16
        assert (bits.unpack_sorted(packed, size, count) == values).all()


def test_the_ends_of_a_large_universe_round_trip() -> None:
    universe = 2048 * 262_144
    values = np.array([0, 1, universe // 2, universe - 2, universe - 1])
    assert (bits.unpack_sorted(bits.pack_sorted(values, universe), universe, 5) == values).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CacheError, match="4 bits hold 0 to 15"):
        bits.pack(np.array([16]), 4)
    with pytest.raises(CacheError, match="bits"):
        bits.pack(np.array([-1]), 4)
    with pytest.raises(CacheError, match="width of 33"):
        bits.pack(np.array([1]), 33)
    with pytest.raises(CacheError, match="strictly increasing"):
        bits.pack_sorted(np.array([3, 3]), 10)
    with pytest.raises(CacheError, match="strictly increasing"):
        bits.pack_sorted(np.array([3, 10]), 10)


def test_too_few_bytes_are_refused() -> None:
    with pytest.raises(CacheError, match="2 bytes"):
        bits.unpack(np.zeros(2, np.uint8), 9, 2)
    packed = bits.pack_sorted(np.arange(100, dtype=np.int64) * 7, 1000)
    with pytest.raises(CacheError, match="sorted numbers"):
        bits.unpack_sorted(packed[:-1], 1000, 100)
