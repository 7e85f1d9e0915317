"""A cache gives back what was put in, or says what is wrong: every fault here is a real one that is injected."""

from __future__ import annotations

import builtins
import errno
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stilla.cache import DenseCoder, Entry, Manifest, Place, Store, Writer, exists, key_of
from stilla.cache.care import contents, prune, verify
from stilla.errors import CacheError

FINGERPRINT = {"teacher": "7e4c", "processor": "a1b2", "length": 128, "preparation": {"text": ["sentence"]}}


def manifest(**changes: Any) -> Manifest:
    return Manifest({**FINGERPRINT, **changes}, DenseCoder(2), classes=2)


def entry(number: int) -> Entry:
    rows = 1 + number % 3
    blob = np.random.default_rng(number).random((rows, 2), np.float32).tobytes()
    return Entry(key_of(str(number).encode()), rows, blob)


def write(path: str | Path, numbers: range, **options: Any) -> None:
    with Writer(path, manifest(), **{"shard_segments": 10, **options}) as writer:
        for number in numbers:
            writer.add(entry(number))


def check(store: Store, numbers: range) -> None:
    places = store.find([entry(number).key for number in numbers])
    assert (places >= 0).all()
    for number, (rows, blob) in zip(numbers, store.read(places), strict=True):
        assert (rows, bytes(blob)) == (entry(number).rows, entry(number).blob)


def content(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(path.iterdir()) if not one.name.endswith(".lock")}


def shards(path: Path) -> list[Path]:
    return sorted(path.glob("*.arrow"))


def refusal(path: Path) -> str | None:
    """What reading everything is refused with; None where everything is right."""
    try:
        check(Store(path), range(95))
    except CacheError as error:
        return str(error)
    return None


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / "cache", range(95))
    return tmp_path / "cache"


@pytest.mark.parametrize("url", ["{tmp}/cache", "file://{tmp}/cache", "memory://{tmp}/cache"])
def test_what_was_written_is_found_in_any_store(url: str, tmp_path: Path) -> None:
    path = url.format(tmp=tmp_path)
    assert not exists(path)
    write(path, range(95))
    store = Store(path)
    check(store, range(95))
    assert exists(path)
    assert len(store) == 95
    assert len(store.shards) == 10
    assert store.manifest == manifest()
    assert [problem for _, problem in verify(path) if problem] == []


def test_a_store_that_cannot_be_reached_is_said_in_words() -> None:
    with pytest.raises(CacheError, match=r"s4://bucket/said: no such store can be reached: Protocol not known: s4"):
        Place("s4://bucket/said")


def test_what_was_not_written_is_not_found(cache: Path) -> None:
    found = Store(cache).find([entry(3).key, entry(1000).key, entry(4).key, bytes(16), b"\xff" * 16])
    assert (found >= 0).tolist() == [True, False, True, False, False]
    assert Store(cache).find([]).tolist() == []


def test_keys_whose_halves_agree_are_told_apart(tmp_path: Path) -> None:
    keys = [b"same....".ljust(8) + bytes([number] * 8) for number in range(20)]
    with Writer(tmp_path, manifest()) as writer:
        for number, key in enumerate(keys[:10]):
            writer.add(Entry(key, 1, np.float32([number, 0]).tobytes()))
    store = Store(tmp_path)
    places = store.find(keys)
    assert (places >= 0).tolist() == [True] * 10 + [False] * 10
    assert [np.frombuffer(blob, np.float32)[0] for _, blob in store.read(places[:10])] == list(range(10))


def test_the_same_knowledge_gives_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", range(95))
    assert content(cache) == content(tmp_path / "again")


def capture(path: Path, delay: float = 0.0) -> None:
    """What a capture does: it adds, in order, what is not there yet."""
    known = Store(path) if exists(path) else None
    with Writer(path, manifest(), shard_segments=10) as writer:
        for number in range(95):
            if known is None or known.find([entry(number).key])[0] < 0:
                writer.add(entry(number))
            time.sleep(delay)


@pytest.mark.slow
def test_killed_at_any_point_it_continues_to_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    chance = random.Random(1)
    resumed = 0
    for attempt in range(6):
        path = tmp_path / f"killed-{attempt}"
        for _ in range(2):
            child = fork.Process(target=capture, args=(path, 0.002))
            enough = len(shards(path)) + chance.randrange(4)
            child.start()
            while child.is_alive() and len(shards(path)) < enough:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        resumed += 0 < len(shards(path)) < 10
        capture(path)
        assert content(path) == content(cache)
        check(Store(path), range(95))
    assert resumed


@pytest.mark.parametrize("step", range(12))
def test_killed_between_any_two_steps_of_writing_it_continues(
    step: int, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    taken = 0

    def deadly(call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > step:
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", deadly(os.fsync))
        patched.setattr(os, "replace", deadly(os.replace))
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            capture(tmp_path / "killed")
    assert list((tmp_path / "killed").glob("*.partial"))
    capture(tmp_path / "killed")
    assert content(tmp_path / "killed") == content(cache)


@pytest.mark.slow
def test_no_flipped_bit_passes_for_an_answer(cache: Path) -> None:
    file = shards(cache)[4]
    whole = file.read_bytes()
    chance = random.Random(0)
    named = 0
    for _ in range(300):
        place, bit = chance.randrange(len(whole)), chance.randrange(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        problems = [problem for name, problem in verify(cache) if name == file.name]
        assert problems[0], f"a flipped bit at {place} was not seen"
        said = refusal(cache)
        named += said is not None
        assert said is None or (file.name in said and "stilla cache prune" in said)
    assert named > 150  # the others hit padding
    file.write_bytes(whole)
    check(Store(cache), range(95))


def test_a_file_cut_short_is_named(cache: Path) -> None:
    file = shards(cache)[2]
    whole = file.read_bytes()
    for length in (0, 1, 7, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CacheError, match=rf"{file.name}: cut short or damaged"):
            Store(cache)


def test_foreign_files_are_named(cache: Path, tmp_path: Path) -> None:
    (cache / "table.arrow").write_bytes(b"ARROW1 of somebody else")
    with Writer(tmp_path / "other", manifest(teacher="ffff")) as writer:
        writer.add(entry(1000))
    stranger = shards(tmp_path / "other")[0]
    (cache / stranger.name).write_bytes(stranger.read_bytes())
    with pytest.raises(CacheError) as caught:
        Store(cache)
    assert "table.arrow: not a file of a cache" in str(caught.value)
    assert f"{stranger.name}: belongs to another cache" in str(caught.value)
    problems = {name: problem for name, problem in verify(cache) if problem}
    assert set(problems) == {"table.arrow", stranger.name}
    prune(cache)
    assert (cache / "table.arrow").exists()
    assert not (cache / stranger.name).exists()


def test_another_version_is_named(cache: Path) -> None:
    plain = manifest().plain() | {"version": 1}
    (cache / "cache.json").write_text(json.dumps(plain))
    with pytest.raises(CacheError, match=r"cache\.json: got version 1 of the cache's format; this Stilla reads 2"):
        Store(cache)


def test_a_manifest_cut_short_is_named(cache: Path) -> None:
    text = (cache / "cache.json").read_text()
    for length in (0, 1, 50, len(text) - 1):
        (cache / "cache.json").write_text(text[:length])
        with pytest.raises(CacheError, match=r"cache\.json was changed since it was written"):
            Store(cache)


@pytest.mark.parametrize(("name", "value"), [
    ("teacher", "0000"), ("processor", "0000"), ("length", 64), ("preparation", {"text": ["title", "body"]})])
def test_what_another_teacher_or_preparation_said_is_refused(name: str, value: Any, cache: Path) -> None:
    with pytest.raises(CacheError, match=rf"What differs:\n  {name}"):
        Store(cache).refuse_other({**FINGERPRINT, name: value})
    with pytest.raises(CacheError, match=rf"holds another cache. What differs:\n  fingerprint\.{name}"):
        Writer(cache, manifest(**{name: value}))
    Store(cache).refuse_other(FINGERPRINT)
    write(cache, range(95, 100))
    check(Store(cache), range(100))


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with Writer(tmp_path, manifest()) as first:
        first.add(entry(0))
        with pytest.raises(CacheError, match="another process is writing"):
            Writer(tmp_path, manifest())
        with pytest.raises(CacheError, match="another process is writing"):
            prune(tmp_path)
        first.add(entry(1))
    check(Store(tmp_path), range(2))
    write(tmp_path, range(2, 3))  # the lock is free again


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=capture, args=(tmp_path, 0.1))
    child.start()
    while not (tmp_path / "cache.json").exists():
        time.sleep(0.01)
    with pytest.raises(CacheError, match="another process is writing"):
        Writer(tmp_path, manifest())
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    Writer(tmp_path, manifest()).close()


def test_parts_share_a_folder(tmp_path: Path) -> None:
    with Writer(tmp_path, manifest(), part="0") as one, Writer(tmp_path, manifest(), part="1") as other:
        for number in range(40):
            (one if number % 2 else other).add(entry(number))
        other.add(entry(1))  # both have seen it
    store = Store(tmp_path)
    check(store, range(40))
    assert len(store) == 40


def test_two_captures_into_a_store_without_locks_share_it(tmp_path: Path) -> None:
    url = f"memory://{tmp_path}"
    with Writer(url, manifest(), shard_segments=7) as one, Writer(url, manifest(), shard_segments=7) as other:
        for number in range(40):
            one.add(entry(number))
            other.add(entry(39 - number))
    store = Store(url)
    check(store, range(40))
    assert len(store) == 40
    assert [problem for _, problem in verify(url) if problem] == []


def test_readers_see_what_is_written_when_they_look_again(tmp_path: Path) -> None:
    with Writer(tmp_path, manifest(), shard_segments=5) as writer:
        readers = [Store(tmp_path), Store(tmp_path)]
        for number in range(12):
            writer.add(entry(number))
        for reader in readers:
            assert len(reader) == 0
            reader.refresh()
            check(reader, range(10))
    readers[0].refresh()
    check(readers[0], range(12))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Room for so many more files; then half of one is written and the disk is full."""
    room = [10**9]
    really_open = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> Any:
            return self.file.__exit__(*error)

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = really_open(self, mode, *args, **kwargs)
        if mode != "wb":
            return file
        room[0] -= 1
        return file if room[0] >= 0 else Full(file)

    monkeypatch.setattr(Path, "open", opened)
    yield room
    monkeypatch.undo()


def test_a_full_disk_loses_only_the_shard_in_flight(full_disk: list[int], tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "full"
    full_disk[0] = 3  # the manifest and two shards
    with pytest.raises(CacheError, match="no room left to write 0-000002"):
        capture(path)
    assert not list(path.glob("*.partial"))
    check(Store(path), range(20))
    full_disk[0] = 1000
    capture(path)
    assert content(path) == content(cache)


def test_pruning_leaves_what_is_good_and_says_what_went(cache: Path) -> None:
    before = content(cache)
    broken = shards(cache)[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-20])
    (cache / "0-000099-abc.arrow.77.partial").write_bytes(b"half")
    (cache / "notes.txt").write_text("mine")
    said = dict(prune(cache, dry_run=True))
    assert set(said) == {broken.name, "0-000099-abc.arrow.77.partial"}
    assert broken.exists()
    assert dict(prune(cache)) == said
    assert set(content(cache)) == set(before) - {broken.name} | {"notes.txt"}
    capture(cache)
    check(Store(cache), range(95))


def test_pruning_removes_what_is_there_twice(tmp_path: Path) -> None:
    write(tmp_path, range(20), part="0")
    write(tmp_path, range(10), part="1")
    assert [name.partition("-")[0] for name, _ in prune(tmp_path)] == ["1"]
    check(Store(tmp_path), range(20))


def test_contents_are_counted(cache: Path) -> None:
    found = contents(cache)
    assert (found.segments, found.files) == (95, 10)
    assert found.rows == sum(entry(number).rows for number in range(95))
    assert found.bytes == sum(one.stat().st_size for one in shards(cache))


def test_where_there_is_no_cache_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="there is no cache"):
        Store(tmp_path / "nothing")
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(CacheError, match="not of a cache"):
        Store(tmp_path)


def test_reading_needs_no_permission_to_write(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert not set(mode) & set("wax+"), f"{file} was opened to write"
        return real(file, mode, *args, **kwargs)

    real = builtins.open
    monkeypatch.setattr(builtins, "open", never)
    check(Store(Place(cache)), range(95))
