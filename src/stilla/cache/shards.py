"""One file of a cache: an Arrow table of segments, each a key, its number of rows, a checksum and a blob.

The file's name ends in a hash of its bytes; its schema holds a checksum of everything but the blobs, so that a look at
the index finds a damaged one, and every blob is checked when it is read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stilla.errors import CacheError

KEY = 16
"""Bytes of a segment's key."""
NAME = re.compile(r"(?P<part>[\w.]+)-(?P<number>\d{6})-(?P<digest>[0-9a-f]{16})\.arrow")
_MARK, _CACHE, _INDEX = b"stilla.cache", b"cache", b"index"
_VERSION = b"1"


@dataclass(frozen=True)
class Entry:
    """What a teacher said of one piece of the data. rows: how many rows its blob holds."""

    key: bytes
    rows: int
    blob: bytes


def key_of(content: bytes) -> bytes:
    """The key of a segment: a hash of everything that the teacher sees of it."""
    return blake2b(content, digest_size=KEY).digest()


def shard_bytes(entries: Sequence[Entry], cache: str) -> bytes:
    """The same bytes for the same entries. `cache`: the fingerprint of the cache that it is part of."""
    sizes = np.fromiter((len(one.blob) for one in entries), np.int64, len(entries))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    keys = b"".join(one.key for one in entries)
    rows = np.fromiter((one.rows for one in entries), np.uint32, len(entries))
    checksums = np.fromiter((_checksum(one.key, one.blob) for one in entries), np.uint32, len(entries))
    blobs = b"".join(one.blob for one in entries)
    columns = {
        "key": pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY), len(entries), [None, pa.py_buffer(keys)]),
        "rows": pa.array(rows),
        "checksum": pa.array(checksums),
        "blob": pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(entries), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(blobs)]),
    }
    index = _index_checksum(keys, rows, checksums, offsets)
    batch = pa.record_batch(columns, metadata={_MARK: _VERSION, _CACHE: cache.encode(), _INDEX: index})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return bytes(sink.getvalue())


def name_of(part: str, number: int, content: bytes) -> str:
    return f"{part}-{number:06d}-{digest_of(content)}.arrow"


def digest_of(content: bytes | pa.Buffer) -> str:
    return blake2b(content, digest_size=8).hexdigest()


class StrangerError(CacheError):
    """A file of segments is whole, and of another cache than the one it lies in."""


class Shard:
    """A file that was opened: its index in memory, its blobs mapped.

    Raises:
        CacheError: it is cut short, damaged, of something else or of another cache.
    """

    def __init__(self, name: str, mapped: pa.Buffer, cache: str) -> None:
        self.name = name
        self._mapped = mapped
        try:
            table = pa.ipc.open_file(mapped)
            metadata = table.schema.metadata or {}
            batch = table.get_batch(0) if table.num_record_batches == 1 else None
        # a flipped bit in Arrow's own structures comes out as any of them
        except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError) as error:
            raise CacheError(f"{name}: cut short or damaged ({str(error).splitlines()[0]})") from error
        if _MARK not in metadata or batch is None:
            raise CacheError(f"{name}: not written by Stilla")
        if metadata[_MARK] != _VERSION:
            raise CacheError(f"{name}: got version {metadata[_MARK].decode(errors='replace')} of the format; this Stilla "
                             f"reads {_VERSION.decode()}")
        if metadata.get(_CACHE) != cache.encode():
            if not self._as_named():
                raise CacheError(f"{name}: damaged (its bytes do not match its name)")
            raise StrangerError(f"{name}: belongs to another cache (other teacher, tokenizer, preparation or form)")
        try:
            self._read_index(batch, metadata.get(_INDEX, b""))
        except (pa.ArrowException, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"{name}: damaged ({error})") from error

    def _read_index(self, batch: pa.RecordBatch, expected: bytes) -> None:
        count = batch.num_rows
        if batch.schema.types != [pa.binary(KEY), pa.uint32(), pa.uint32(), pa.large_binary()]:
            raise ValueError("other columns")
        buffers = [column.buffers() for column in batch.columns]
        self.keys: NDArray[np.uint64] = np.frombuffer(buffers[0][1], np.uint64, 2 * count).reshape(count, 2)
        self.rows: NDArray[np.uint32] = np.frombuffer(buffers[1][1], np.uint32, count)
        self._checksums = np.frombuffer(buffers[2][1], np.uint32, count)
        self._offsets = np.frombuffer(buffers[3][1], np.int64, count + 1)
        self._blobs = memoryview(buffers[3][2] or b"")
        found = _index_checksum(self.keys.tobytes(), self.rows, self._checksums, self._offsets)
        if found != expected or self._offsets[-1] > len(self._blobs):
            raise ValueError("its index does not match its checksum")

    def __len__(self) -> int:
        return len(self.keys)

    def blob(self, place: int) -> memoryview:
        """Raises:
            CacheError: the bytes are not those that were written.
        """
        blob = self._blobs[self._offsets[place] : self._offsets[place + 1]]
        if _checksum(self.keys[place].tobytes(), blob) != self._checksums[place]:
            raise CacheError(f"{self.name}: segment {place} of {len(self)} does not match its checksum: damaged")
        return blob

    def problems(self) -> list[str]:
        """What is wrong with any of its bytes."""
        if self._as_named():
            return []
        for place in range(len(self)):
            try:
                self.blob(place)
            except CacheError as error:
                return [str(error)]
        return [f"{self.name}: its bytes do not match its name: damaged or renamed"]

    def _as_named(self) -> bool:
        named = NAME.fullmatch(self.name)
        return named is not None and digest_of(self._mapped) == named["digest"]


class Index:
    """Keys of all shards, sorted by their first half."""

    def __init__(self, shards: Sequence[NDArray[np.uint64]]) -> None:
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *shards])
        places = [(number << 32) + np.arange(len(one)) for number, one in enumerate(shards)]
        whole = np.concatenate([np.zeros(0, np.int64), *places]).astype(np.int64)
        order = np.lexsort((whole, keys[:, 1], keys[:, 0]))
        keys, whole = keys[order], whole[order]
        new = np.ones(len(keys), bool)
        new[1:] = (keys[1:] != keys[:-1]).any(1)  # the same segment in two parts: the first one counts
        self._keys, self._places = np.ascontiguousarray(keys[new].T), whole[new]

    def __len__(self) -> int:
        return len(self._places)

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        found = np.full(len(keys), -1, np.int64)
        if not len(self) or not keys:
            return found
        wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        places = np.searchsorted(self._keys[0], wanted[:, 0])
        open_ = np.flatnonzero(places < len(self))
        while len(open_):  # once; more often only where the halves of two keys agree
            here = places[open_]
            alike = self._keys[0, here] == wanted[open_, 0]
            same = alike & (self._keys[1, here] == wanted[open_, 1])
            found[open_[same]] = self._places[here[same]]
            open_ = open_[alike & ~same]
            places[open_] += 1
            open_ = open_[places[open_] < len(self)]
        return found


def _checksum(key: bytes, blob: bytes | memoryview) -> int:
    return zlib.crc32(blob, zlib.crc32(key))


def _index_checksum(
    keys: bytes, rows: NDArray[np.uint32], checksums: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> bytes:
    total = blake2b(keys, digest_size=8)
    for column in (rows, checksums, offsets):
        total.update(column.tobytes())
    return total.hexdigest().encode()
