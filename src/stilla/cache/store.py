"""A cache as a whole: what it holds, looked up by content; and its one writer at a time.

    cache.json                    what it holds: teacher, processor, preparation and form, how rows are coded; a checksum
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
from stilla.cache.shards import NAME, Entry, Index, Shard, StrangerError, name_of, shard_bytes
from stilla.errors import CacheError, all_at_once
from stilla.runtime.differences import differences

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
        """What is written: the content, with its own hash as a checksum."""
        return _written({**self.plain(), "checksum": self.hash()})

    def hash(self) -> str:
        """Of the content; what the cache's shards are marked with."""
        return _hash(self.plain())

    @classmethod
    def read(cls, content: bytes) -> Manifest:
        """Raises:
            ValueError, KeyError, TypeError: these are not the bytes that were written, or never were a manifest.
            CacheError: another version of the format, a form that this version does not know.
        """
        plain = json.loads(content.decode())
        if not isinstance(plain, dict):
            raise ValueError("no manifest of a cache")
        checksum = plain.pop("checksum", None)
        if checksum is not None and content != _written({**plain, "checksum": _hash(plain)}).encode():
            raise ValueError("its content does not match its checksum")
        if plain.get("format") != "stilla cache":
            raise ValueError("no manifest of a cache")
        if plain["version"] != VERSION:
            raise CacheError(f"got version {plain['version']} of the cache's format; this Stilla reads {VERSION}")
        manifest = cls(
            plain["fingerprint"], coder_from(plain["logits"]) if plain["logits"] else None,
            coder_from(plain["states"]) if plain["states"] else None, plain["classes"], plain["widths"], plain["head"])
        # without a checksum: of before there were any; or the word itself is damaged, and nothing here is called so
        if checksum is None and content != _written(manifest.plain()).encode():
            raise ValueError("it is not written as Stilla writes it")
        return manifest


class Store:
    """A cache that is open for reading; several processes may read while one writes.

    Raises:
        CacheError: there is none; its manifest is damaged; damaged or foreign files, all of them named.
    """

    def __init__(self, path: str | Path | Place, *, damaged: bool = False) -> None:
        """`damaged`: open it all the same, to look at what is left; `problems` then says what is wrong. A damaged manifest
        cannot be opened: every file would seem to be of another cache."""
        self.place = path if isinstance(path, Place) else Place(path)
        self.manifest = _manifest_at(self.place)
        self.problems: list[str] = []
        self._shards: list[Shard] = []
        self._known: set[str] = set()
        self._strangers: set[str] = set()
        self._index = Index([])
        self.refresh()
        if self._strangers and not self._shards:
            raise _not_believed(self.place, f"or is of another cache: none of the {len(self._strangers)} files of answers "
                                            "there is of it")
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
                if isinstance(error, StrangerError):
                    self._strangers.add(name)
        self._index = Index([shard.keys for shard in self._shards])

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
        return Manifest.read(place.read(MANIFEST))
    except (ValueError, KeyError, TypeError) as error:
        raise _not_believed(place, f"or is not of a cache ({error})") from error
    except CacheError as error:
        raise CacheError(f"{place.path}/{MANIFEST}: {error}") from error


def _not_believed(place: Place, why: str) -> CacheError:
    return CacheError(
        f"{place.path}/{MANIFEST} was changed since it was written, {why}. Nothing is removed on its word. Put it back as it "
        "was; or remove it alone, then the same capture, or the same run, writes it anew and goes on with what is there; or "
        "capture into another cache.path, and remove this folder by hand if nobody needs it")


def _written(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def _hash(plain: Mapping[str, Any]) -> str:
    return blake2b(_written(plain).encode(), digest_size=16).hexdigest()


def _way_out(place: Place) -> str:
    return (f"`stilla cache prune {place.path}` removes what is damaged; the next capture, or the next run, makes only "
            "that anew")
