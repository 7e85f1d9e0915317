"""Looking after a cache: what it holds, whether it is whole, and removing what cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stilla.cache.coding import Coder
from stilla.cache.places import PARTIAL, Place
from stilla.cache.shards import NAME, Shard, digest_of
from stilla.cache.store import MANIFEST, Manifest, Store
from stilla.errors import CacheError


@dataclass(frozen=True)
class Contents:
    """What a cache holds, in numbers. `bytes`: of the files; `blob_bytes`: of the coded rows alone."""

    manifest: Manifest
    files: int
    segments: int
    rows: int
    bytes: int
    head_bytes: int

    @property
    def bytes_per_row(self) -> float:
        return self.bytes / max(1, self.rows)


def contents(path: str | Path) -> Contents:
    """Raises:
        CacheError: there is no cache, or it cannot be opened.
    """
    store = Store(path)
    head = (store.manifest.head or {}).get("file")
    return Contents(
        store.manifest, len(store.shards), len(store), sum(int(shard.rows.sum()) for shard in store.shards),
        sum(store.place.size(shard.name) for shard in store.shards), store.place.size(head) if head else 0)


def verify(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """Every file of a cache, read to its last byte, with what is wrong with it or None.

    Raises:
        CacheError: there is no cache, or its manifest is damaged.
    """
    store = Store(path, damaged=True)
    wrong = dict(problem.split(": ", 1) for problem in store.problems)
    shards = {shard.name: shard for shard in store.shards}
    for name in store.place.names():
        if name in shards:
            yield name, _damage(store, shards[name])
        elif name in wrong:
            yield name, wrong[name]
        elif (store.manifest.head or {}).get("file") == name:
            matches = digest_of(store.place.read(name)) == (store.manifest.head or {})["digest"]
            yield name, None if matches else "its bytes do not match its name: damaged"
        elif name.endswith(PARTIAL):
            yield name, "left by a writer that was killed (or is still writing)"
        elif name != MANIFEST and not name.endswith(".lock"):
            yield name, "not a file of a cache"
    head = (store.manifest.head or {}).get("file")
    if head and head not in store.place.names():
        yield head, "missing: without the head, hidden states are no answers"


def prune(path: str | Path, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Remove what cannot be used, or (`dry_run`) say what would be: damaged shards, shards of another cache, shards
    whose every segment another one holds, what killed writers left. Files that no cache writes are never touched.

    Raises:
        CacheError: somebody is writing; there is no cache; its manifest is damaged, so nothing says what is of it.
    """
    place = Place(path)
    store = Store(place, damaged=True)
    locks = [place.lock(f"writer-{part}.lock") for part in _parts(place)]
    try:
        unusable = [(name, problem) for name, problem in verify(path)
                    if problem and (NAME.fullmatch(name) or name.endswith(PARTIAL))]
        bad = {name for name, _ in unusable}
        unusable += [(name, "every segment of it is in another file") for name in _repeats(store, bad)]
        if not dry_run:
            for name, _ in unusable:
                place.remove(name)
        return unusable
    finally:
        for lock in locks:
            if lock is not None:
                lock.release()


def _damage(store: Store, shard: Shard) -> str | None:
    """What is wrong with a shard's bytes, or with what they mean."""
    problems = shard.problems()
    if problems:
        return problems[0].removeprefix(f"{shard.name}: ")
    manifest = store.manifest
    logits: Coder[object] | None = manifest.logits  # type: ignore[assignment]
    if logits is not None and manifest.states is None:
        try:
            logits.decode([shard.blob(place) for place in range(len(shard))], [int(rows) for rows in shard.rows])
        except CacheError as error:
            return str(error)
    return None


def _repeats(store: Store, bad: set[str]) -> list[str]:
    seen: set[bytes] = set()
    found = []
    for shard in store.shards:
        if shard.name in bad:
            continue
        keys = {key.tobytes() for key in shard.keys}
        if keys <= seen:
            found.append(shard.name)
        seen |= keys
    return found


def _parts(place: Place) -> list[str]:
    names = [NAME.fullmatch(name) for name in place.names()]
    return sorted({one["part"] for one in names if one} | {"0"})
