"""Files are there whole or not at all, whatever happens while they are written, and are known by their content."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from stilla.runtime import files
from stilla.runtime.files import contents, is_as_signed, sealed, signed, unsealed, unsigned, write_whole
from stilla.runtime.situations import in_words, is_full


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_replaced_stays_and_nothing_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fails(*_: object) -> None:
        raise error

    file = tmp_path / "scores.json"
    write_whole(file, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(type(error)):
            write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_and_its_name_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_whole(tmp_path / "one", b"content")
    assert flushed == [str(tmp_path / ".one.partial"), str(tmp_path)]


def test_content_is_known_by_every_byte_and_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_bytes(b"\0" * 100)
    (tmp_path / "README.md").write_text("words")
    before = contents(tmp_path, {"README.md"})
    assert list(before) == ["deep/weights"]
    (tmp_path / "deep" / "weights").write_bytes(b"\0" * 99 + b"\1")
    assert contents(tmp_path, {"README.md"}) != before
    assert list(contents(tmp_path / "README.md")) == ["README.md"]


def test_a_flipped_bit_of_sealed_data_is_never_read_as_other_data() -> None:
    plain = {"value": 0.931, "words": "naïve", "list": [1, 2], "nothing": None}
    text = sealed(plain)
    assert unsealed(text) == plain
    content = text.encode()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytes([*content[:place], content[place] ^ (1 << bit), *content[place + 1:]])
            try:
                found = unsealed(flipped.decode(), needed=True)
            except ValueError:
                continue
            assert found == plain


@pytest.mark.parametrize("text", ["", "[]", "3", '{"checksum": 3}', '{"value": 1, "checksum": "0"}'])
def test_what_is_not_sealed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unsealed(text)


def test_a_text_says_whether_it_was_changed() -> None:
    text = signed("seed: 1\n")
    assert is_as_signed(text)
    assert unsigned(text) == "seed: 1\n"
    assert not is_as_signed(text.replace("seed: 1", "seed: 3"))
    assert is_as_signed("seed: 1\n")  # never signed


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_what_the_system_says_of_a_place_names_it_and_the_way_on(code: int) -> None:
    words = in_words(OSError(code, os.strerror(code), "/data/run"))
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR,
                errno.ENAMETOOLONG, errno.ENOENT, errno.EIO, errno.ESTALE):
        assert words is not None
    if words is not None:
        assert words.startswith("/data/run: ")
        assert ". " in words
    assert in_words(OSError(errno.EACCES, "of no place")) is None


def test_a_full_disk_is_known_whoever_says_it() -> None:
    wrapped = ValueError("cannot be saved")
    wrapped.__cause__ = RuntimeError("I/O error: No space left on device (os error 28)")
    assert is_full(wrapped)
    assert is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert is_full(ValueError("Error while serializing: I/O error: File too large (os error 27)"))  # FAT32, ulimit -f
    assert not is_full(ValueError("28"))


def test_a_file_that_may_not_be_as_large_says_what_to_do() -> None:
    words = in_words(OSError(errno.EFBIG, "File too large", "/data/run/log.jsonl"))
    assert words is not None
    assert words.startswith("/data/run/log.jsonl: no file may be as large there. Its disk (FAT32: 4 GB) or a limit")


def test_checksums_do_not_depend_on_how_json_is_set() -> None:
    text = sealed({"a": 1, "b": [0.1, None]})
    assert unsealed(json.dumps(json.loads(text))) == {"a": 1, "b": [0.1, None]}
    assert files.CHECKSUM in json.loads(text)
