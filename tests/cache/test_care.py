"""What looks after a cache believes no damaged manifest, and looks at all that lies in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stilla.cache import Manifest, Store, Writer, exists
from stilla.cache.care import contents, prune, verify
from stilla.cli import main
from stilla.errors import CacheError
from tests.cache.test_store import check, content, manifest, shards, write

Command = Callable[..., tuple[int, str, str]]
CHANGED = r"cache\.json was changed since it was written"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / "cache", range(35))
    return tmp_path / "cache"


@pytest.fixture
def both(cache: Path) -> Path:
    write(cache / "states", range(15))
    return cache


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `stilla cache`; gives its exit code, and what it said in lines that are not broken."""
    monkeypatch.setenv("COLUMNS", "1000")

    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["cache", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return command


def flip(file: Path, place: int, bit: int = 0) -> None:
    whole = bytearray(file.read_bytes())
    whole[place] ^= 1 << bit
    file.write_bytes(whole)


def without_checksum(file: Path) -> None:
    """As manifests were before they had one."""
    plain = json.loads(file.read_text())
    del plain["checksum"]
    file.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


# A damaged manifest


def test_every_flipped_bit_of_the_manifest_is_found() -> None:
    whole = manifest().text().encode()
    assert Manifest.read(whole) == manifest()
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            with pytest.raises(ValueError, match=r"\w"):
                Manifest.read(bytes(flipped))


@pytest.mark.parametrize("word", ["7e4c", "classes", "checksum", "version", "stilla cache", "\n"])
def test_a_damaged_manifest_is_named_and_nothing_is_removed_on_its_word(word: str, cache: Path) -> None:
    flip(cache / "cache.json", (cache / "cache.json").read_bytes().index(word.encode()))
    before = content(cache)
    (cache / "0-000099-abc.arrow.77.partial").write_bytes(b"half")
    for look in (Store, contents, prune, lambda path: list(verify(path)), lambda path: Writer(path, manifest())):
        with pytest.raises(CacheError, match=CHANGED) as caught:
            look(cache)
        for way in ("Put it back", "remove it alone", "another cache.path"):
            assert way in str(caught.value)
    assert {**before, "0-000099-abc.arrow.77.partial": b"half"} == content(cache)


def test_without_its_damaged_manifest_the_same_capture_goes_on(cache: Path) -> None:
    before = content(cache)
    flip(cache / "cache.json", 100)
    (cache / "cache.json").unlink()
    write(cache, range(0))
    assert content(cache) == before
    check(Store(cache), range(35))


def test_without_its_manifest_another_capture_is_refused_and_removes_nothing(cache: Path) -> None:
    (cache / "cache.json").unlink()
    Writer(cache, manifest(teacher="ffff")).close()
    for look in (Store, prune):
        with pytest.raises(CacheError, match=r"none of the 4 files of answers there is of it"):
            look(cache)
    assert len(shards(cache)) == 4


def test_manifests_from_before_there_was_a_checksum_are_read(cache: Path) -> None:
    without_checksum(cache / "cache.json")
    check(Store(cache), range(35))
    assert [problem for _, problem in verify(cache) if problem] == []
    old = (cache / "cache.json").read_bytes()
    write(cache, range(35, 40))
    check(Store(cache), range(40))
    assert (cache / "cache.json").read_bytes() == old
    assert prune(cache) == []


def test_damage_to_a_manifest_without_a_checksum_shows_by_its_files(cache: Path) -> None:
    without_checksum(cache / "cache.json")
    flip(cache / "cache.json", (cache / "cache.json").read_bytes().index(b"7e4c"))
    for look in (Store, contents, prune, lambda path: list(verify(path))):
        with pytest.raises(CacheError, match=rf"{CHANGED}, .*none of the 4 files"):
            look(cache)
    assert len(shards(cache)) == 4


def test_a_file_whose_mark_is_damaged_is_not_taken_for_a_file_of_another_cache(tmp_path: Path) -> None:
    write(tmp_path, range(5))
    (file,) = shards(tmp_path)
    flip(file, file.read_bytes().rindex(manifest().hash().encode()))
    assert prune(tmp_path) == [(file.name, "damaged (its bytes do not match its name)")]


def test_parts_that_begin_one_cache_write_one_manifest(tmp_path: Path) -> None:
    with Writer(tmp_path, manifest(), part="0"):
        begun = (tmp_path / "cache.json").read_bytes()
        Writer(tmp_path, manifest(), part="1").close()
    assert (tmp_path / "cache.json").read_bytes() == begun == manifest().text().encode()


# The commands


def test_verify_reads_the_states_within_too(both: Path, command: Command) -> None:
    assert command("verify", both)[:2] == (0, "All 6 files are as they were written.\n")
    broken = shards(both / "states")[1]
    flip(broken, broken.stat().st_size // 2)
    code, out, _ = command("verify", both)
    assert code == 2
    assert f"{broken}: " in out
    assert "1 of 6 files are wrong" in out


def test_prune_tidies_the_states_within_too(both: Path, command: Command) -> None:
    broken = [shards(both)[0], shards(both / "states")[1]]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-20])
    code, out, _ = command("prune", both, "--dry-run")
    assert (code, all(file.exists() for file in broken)) == (0, True)
    assert "2 files would be removed" in out
    code, out, _ = command("prune", both)
    assert (code, any(file.exists() for file in broken)) == (0, False)
    assert all(f"{file}: " in out for file in broken)
    assert "2 files were removed" in out
    assert command("prune", both)[:2] == (0, "Nothing to remove.\n")


def test_states_alone_are_looked_after(tmp_path: Path, command: Command) -> None:
    write(tmp_path / "cache" / "states", range(15))
    assert command("verify", tmp_path / "cache")[:2] == (0, "All 2 files are as they were written.\n")
    assert command("prune", tmp_path / "cache")[:2] == (0, "Nothing to remove.\n")
    assert not exists(tmp_path / "cache")


@pytest.mark.parametrize("name", ["verify", "prune"])
def test_a_damaged_manifest_hides_nothing_of_the_cache_beside_it(name: str, both: Path, command: Command) -> None:
    flip(both / "cache.json", 100)
    broken = shards(both / "states")[0]
    broken.write_bytes(broken.read_bytes()[:-20])
    code, out, err = command(name, both)
    assert code == 2
    assert f"{broken}: " in out
    assert f"{both}/cache.json was changed since it was written" in err
    assert len(shards(both)) == 4
    assert broken.exists() == (name == "verify")


def test_info_names_a_damaged_manifest(both: Path, command: Command) -> None:
    flip(both / "states" / "cache.json", 100)
    code, out, err = command("info", both)
    assert code == 2
    assert str(both) in out
    assert f"{both}/states/cache.json was changed since it was written" in err


@pytest.mark.parametrize("name", ["info", "verify", "prune"])
def test_the_folder_of_a_run_stands_for_the_cache_in_it(name: str, both: Path, command: Command) -> None:
    given = command(name, both)
    assert given[0] == 0
    assert command(name, both.parent) == given


@pytest.mark.parametrize("name", ["info", "verify", "prune"])
def test_where_there_is_no_cache_the_commands_say_so(name: str, tmp_path: Path, command: Command) -> None:
    code, _, err = command(name, tmp_path / "nothing")
    assert code == 2
    assert f"{tmp_path}/nothing: there is no cache" in err
