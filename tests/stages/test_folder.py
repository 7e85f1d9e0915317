from __future__ import annotations

from pathlib import Path

import pytest

from stilla.errors import RecipeError
from stilla.stages import folder as run_folder
from stilla.stages.folder import RunFolder, is_run


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.open(overwrite=False)
    folder.begin("student", {"epochs": 3})
    folder.close()
    (path / "stages" / "student.0").mkdir(parents=True)
    (path / "error.txt").touch()
    (path / "notes.txt").touch()
    return folder


def test_overwriting_leaves_only_what_is_not_ours(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.open(overwrite=True)
    folder.close()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "stages.json", ".lock"}
    assert not folder.finished("student", {"epochs": 1})


def test_what_differs_is_said_in_a_recipes_words(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(overwrite=False)
    folder.begin("student", {"data": "0" * 32, "reading": {"text": ["text"]}, "seed": 1})
    with pytest.raises(RecipeError) as refused:
        folder.finished("student", {"data": "f" * 32, "reading": {"text": ["body"]}, "seed": 2})
    lines = [line.strip() for line in str(refused.value).splitlines()]
    assert lines[1:4] == ["data: not what it was then", "data.text.0: text -> body", "seed: 1 -> 2"]


def test_a_list_of_stages_that_is_damaged_is_said(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(RecipeError, match=r"stages\.json: cannot be read .*--overwrite"):
        folder.finished("student", {"epochs": 3})
    folder.open(overwrite=True)
    assert not folder.finished("student", {"epochs": 3})


def test_a_removal_that_was_stopped_can_be_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, remove = begun(tmp_path), run_folder._remove

    def stopped(path: Path) -> None:
        if path.name == "error.txt":
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(run_folder, "_remove", stopped)
    with pytest.raises(KeyboardInterrupt):
        folder.open(overwrite=True)
    assert is_run(tmp_path)
    monkeypatch.undo()
    folder.open(overwrite=True)
