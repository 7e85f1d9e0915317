"""What a path means, and what keeps a folder from being made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stilla.errors import RecipeError
from stilla.runtime.paths import meant, obstacle


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder(home: Path) -> None:
    assert meant("~") == str(home)
    assert meant("~/runs/x") == f"{home}/runs/x"
    assert meant("~root/x") == os.path.expanduser("~root/x") != "~root/x"


def test_a_folder_that_is_called_like_it_changes_nothing(home: Path) -> None:
    (home.parent / "~").mkdir()
    assert meant("~/x") == f"{home}/x"


@pytest.mark.parametrize("text", ["reviews.csv", "./a~b", "a/~/b", "/data/x", "org/name", "package.module:name", " x",
                                  "s3://bucket/~/x", "https://host/~ann/data.csv", "a$b", "x/$HOME", "$5.csv"])
def test_what_is_no_home_folder_stays_as_it_is(home: Path, text: str) -> None:
    assert meant(text) == text


@pytest.mark.parametrize(("text", "said"), [
    ("~no-such-user/x", r"knows no user 'no-such-user'.*write \./~no-such-user/x"),
    ("$HOME/x", "variables are not replaced"), ("${HOME}", "variables are not replaced"),
    ("", "got nothing"), ("a\0b", "NUL"), ("x" * 300, "a name of 300 bytes"), ("ü" * 200 + "/x", "a name of 400 bytes"),
    ("/".join(["x" * 200] * 30), "a path of 6029"), ("a\ud800", "characters that no path can have"),
])
def test_what_can_be_no_path_is_refused(home: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        meant(text)


def test_a_file_that_is_really_called_so_is_meant(home: Path) -> None:
    for name in ("~no-such-user", "$HOME"):
        Path(name).touch()
        assert meant(name) == name


def test_nothing_is_in_the_way_of_a_new_folder(tmp_path: Path) -> None:
    assert obstacle(tmp_path / "new" / "deep") is None
    assert obstacle(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_files_and_broken_links_are_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file; give" in (obstacle(tmp_path / "file") or "")
    assert "is a file, so that nothing can lie in it" in (obstacle(tmp_path / "file" / "run") or "")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert f"is a link to {tmp_path / 'absent'}, which is not there" in (obstacle(tmp_path / "link") or "")
    assert "is a link" in (obstacle(tmp_path / "link" / "run") or "")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a link" in (obstacle(tmp_path / "loop" / "run") or "")
    (tmp_path / "folder").mkdir()
    (tmp_path / "good").symlink_to(tmp_path / "folder")
    assert obstacle(tmp_path / "good" / "run") is None


def test_a_name_too_long_is_in_the_way(tmp_path: Path) -> None:
    assert "name of 300 bytes" in (obstacle(tmp_path / ("x" * 300) / "run") or "")


def test_where_nothing_can_be_written_nothing_can_be_made() -> None:
    assert "cannot be written to" in (obstacle(Path("/proc/run")) or "")


def test_a_folder_that_is_somebody_elses_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may do everything meets the refusal that the system would give to others."""
    def refused(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("stilla.runtime.paths.tempfile.mkdtemp", refused)
    assert "cannot be written to (Permission denied), so that" in (obstacle(tmp_path / "run") or "")


def test_a_full_disk_is_no_reason_for_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert "no room left on its disk, so that" in (obstacle(tmp_path / "run") or "")
    assert "make room" in (obstacle(tmp_path) or "")
