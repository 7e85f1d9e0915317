"""A cache as a whole: what it holds, looked up by content; and its one writer at a time.

    cache.json                    what it holds: teacher, processor, preparation and form, and how rows are coded
    head-<hash>.safetensors       the teacher's head, where hidden states are stored
    <part>-<number>-<hash>.arrow  segments in the order in which they came; one part per writing process
    writer-<part>.lock            held while somebody writes

Nothing in it depends on time, machine or path: the same knowledge captured twice gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.cache.coding import Coders, StatesCoder, coder_from
from stilla.cache.places import PARTIAL, Place
from stilla.cache.shards import NAME, Entry, Shard, name_of, shard_bytes
from stilla.errors import CacheError, all_at_once
from stilla.run_folder import differences

MANIFEST = "cache.json"
VERSION = 2
SHARD_BYTES = 2**26
SHARD_SEGMENTS = 8192
"""A shard is written when it has reached one of both: what a kill or a full disk can cost."""


@dataclass(frozen=True)
class Manifest:
    """What a cache holds.

    fingerprint: what its answers depend on, as plain data: teacher, processor, preparation, length.
    logits: how the rows are coded, None where only states are stored. states: hidden states by position.
    classes, widths: the sizes of the teacher's signals. head: file and settings of the head that hidden rows enter.
    """

    fingerprint: Mapping[str, Any]
    logits: Coders | None
    states: StatesCoder | None = None
    classes: int = 0
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    head: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        return {
            "format": "stilla cache", "version": VERSION, "fingerprint": dict(self.fingerprint),
            "logits": self.logits.plain() if self.logits else None,
            "states": self.states.plain() if self.states else None,
            "classes": self.classes, "widths": {name: list(one) for name, one in self.widths.items()},
            "head": dict(self.head) if self.head else None,
        }

    def text(self) -> str:
        return json.dumps(self.plain(), indent=1, sort_keys=True) + "\n"

    def hash(self) -> str:
        return blake2b(self.text().encode(), digest_size=16).hexdigest()

    @classmethod
    def read(cls, text: str) -> Manifest:
        plain = json.loads(text)
        if plain.get("format") != "stilla cache":
            raise ValueError("no manifest of a cache")
        if plain["version"] != VERSION:
            raise CacheError(f"got version {plain['version']} of the cache's format; this Stilla reads {VERSION}")
        return cls(
            plain["fingerprint"], coder_from(plain["logits"]) if plain["logits"] else None,
            coder_from(plain["states"]) if plain["states"] else None, plain["classes"], plain["widths"], plain["head"])


class Store:
    """A cache that is open for reading; several processes may read while one writes.

    Raises:
        CacheError: there is none; damaged or foreign files, all of them named.
    """

    def __init__(self, path: str | Path | Place, *, damaged: bool = False) -> None:
        """`damaged`: open it all the same, to look at what is left; `problems` then says what is wrong."""
        self.place = path if isinstance(path, Place) else Place(path)
        self.manifest = _manifest_at(self.place)
        self.problems: list[str] = []
        self._shards: list[Shard] = []
        self._known: set[str] = set()
        self._index = _Index([])
        self.refresh()
        if self.problems and not damaged:
            raise all_at_once([f"{self.place.path}: {one}" for one in self.problems] + [_way_out(self.place)], CacheError)

    def refresh(self) -> None:
        """See what was written since."""
        self.problems = []
        for name in self.place.names():
            if name in self._known or not name.endswith(".arrow"):
                continue
            try:
                if NAME.fullmatch(name) is None:
                    raise CacheError(f"{name}: not a file of a cache")
                self._shards.append(Shard(name, self.place.map(name), self.manifest.hash()))
                self._known.add(name)
            except CacheError as error:
                self.problems.append(str(error))
        self._index = _Index([shard.keys for shard in self._shards])

    @property
    def shards(self) -> Sequence[Shard]:
        return self._shards

    def __len__(self) -> int:
        """Segments, each counted once."""
        return len(self._index)

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where the segments lie; -1 for those that are not there."""
        return self._index.find(keys)

    def read(self, places: NDArray[np.int64]) -> list[tuple[int, memoryview]]:
        """Rows and blob of segments that were found.

        Raises:
            CacheError: the bytes are not those that were written.
        """
        found = []
        for shard, place in zip(places >> 32, places & (2**32 - 1), strict=True):
            one = self._shards[shard]
            try:
                found.append((int(one.rows[place]), one.blob(int(place))))
            except CacheError as error:
                raise CacheError(f"{self.place.path}: {error}. {_way_out(self.place)}") from error
        return found

    def refuse_other(self, fingerprint: Mapping[str, Any]) -> None:
        """Raises:
            CacheError: the cache was made from something else; what differs.
        """
        changed = differences(self.manifest.fingerprint, fingerprint)
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise CacheError(f"{self.place.path} holds what another teacher or another preparation said. What differs:\n"
                             f"{listed}\nGive another cache.path, or remove this folder if nobody needs it")


class Writer:
    """Adds segments; what was added is on disk after `flush`, and shards are written as they fill.

    `number`: of the next shard. `part`: one writer per part at a time; several processes of one capture take a part each.

    Raises:
        CacheError: somebody else writes this part; the place holds another cache.
    """

    def __init__(
        self, path: str | Path | Place, manifest: Manifest, *, part: str = "0",
        shard_bytes: int = SHARD_BYTES, shard_segments: int = SHARD_SEGMENTS,
    ) -> None:
        self.place = path if isinstance(path, Place) else Place(path)
        self.part = part
        self._limits = (shard_bytes, shard_segments)
        self._lock = self.place.lock(f"writer-{part}.lock")
        try:
            self._hash = _begin(self.place, manifest, part)
            for name in self.place.names():
                if name.startswith(f"{part}-") and name.endswith(PARTIAL):  # of a killed writer of this part
                    self.place.remove(name)
        except BaseException:
            self.close(flush=False)
            raise
        self.pending: dict[bytes, Entry] = {}
        self._size = 0
        self.number = 1 + max((int(one["number"]) for one in map(NAME.fullmatch, self.place.names())
                                if one and one["part"] == part), default=-1)

    def add(self, entry: Entry) -> None:
        if entry.key in self.pending:
            return
        self.pending[entry.key] = entry
        self._size += len(entry.blob)
        if self._size >= self._limits[0] or len(self.pending) >= self._limits[1]:
            self.flush()

    def flush(self) -> None:
        """Raises:
            CacheError: there is no room left; what was written before is intact, what was added since is gone.
        """
        if not self.pending:
            return
        entries, self.pending, self._size = list(self.pending.values()), {}, 0
        content = shard_bytes(entries, self._hash)
        self.place.write(name_of(self.part, self.number, content), content, by=self.part)
        self.number += 1

    def close(self, *, flush: bool = True) -> None:
        try:
            if flush:
                self.flush()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close(flush=kind is None)


def exists(path: str | Path | Place) -> bool:
    """Whether a cache lies there, finished or not."""
    place = path if isinstance(path, Place) else Place(path)
    return MANIFEST in place.names()


def _begin(place: Place, manifest: Manifest, part: str) -> str:
    """Write the manifest, or find the same one there."""
    if not exists(place):
        place.write(MANIFEST, manifest.text().encode(), by=part)
        return manifest.hash()
    there = _manifest_at(place)
    if there != manifest and there.hash() != manifest.hash():
        changed = "\n".join(f"  {line}" for line in differences(there.plain(), manifest.plain()))
        raise CacheError(f"{place.path} holds another cache. What differs:\n{changed}\nGive another cache.path, or remove "
                         "this folder if nobody needs it")
    return there.hash()


def _manifest_at(place: Place) -> Manifest:
    if not exists(place):
        raise CacheError(f"{place.path}: there is no cache (no {MANIFEST}). `stilla capture recipe.yaml` makes one")
    try:
        return Manifest.read(place.read(MANIFEST).decode())
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{place.path}/{MANIFEST}: damaged, or not of a cache ({error})") from error


def _way_out(place: Place) -> str:
    return (f"`stilla cache prune {place.path}` removes what is damaged; the next capture, or the next run, makes only "
            "that anew")


class _Index:
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
