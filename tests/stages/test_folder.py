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


def test_overwriting_leaves_what_links_lead_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, disk = begun(tmp_path / "run"), tmp_path / "large disk"
    disk.mkdir()
    (disk / "shard.arrow").touch()
    for path in (folder.cache, folder.path / "checkpoints"):
        path.symlink_to(disk)
    (tmp_path / "linked").symlink_to(folder.path)
    linked = RunFolder(tmp_path / "linked")
    linked.open(overwrite=True)
    linked.close()
    assert not folder.cache.is_symlink()
    assert (disk / "shard.arrow").exists()
    assert (tmp_path / "linked").is_symlink()
    assert not folder.finished("student", {"epochs": 1})
    assert "the link is removed" in capfd.readouterr().err


@pytest.mark.parametrize("names", [["recipe.yaml"], ["data"], ["data", "recipe.yaml"], ["data", "start"],
                                   ["demo.yaml", "recipe.yaml"], ["demo.yaml", "thesis.tex"], [".lock", "notes.txt"]])
def test_a_persons_own_folder_is_no_place_for_a_run(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(RecipeError, match="no run of Stilla"):
            RunFolder(tmp_path).open(overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("names", [[], [".lock", ".owner.json"], [".stilla-of-a-trial"], ["demo.yaml"],
                                   ["demo.yaml", "data", "start", ".lock"]])
def test_an_empty_folder_or_one_that_a_demo_laid_ready_is(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    folder = RunFolder(tmp_path)
    folder.open(overwrite=False)
    folder.close()
    assert is_run(tmp_path)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    left = [folder.path / ".student.12345678.new", folder.exports / ".onnx.12345678.old",
            folder.path / ".scores.json.partial", folder.path / "seeds" / ".student-1.12345678.new",
            folder.completions / ".part-00000.parquet.partial"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if path.suffix in (".new", ".old") else path.touch()
    for stage in ("teacher", "student"):
        (folder.checkpoints(stage) / "checkpoint-1").mkdir(parents=True)
    folder.finish("teacher", {})
    (folder.checkpoints("teacher") / "checkpoint-1").mkdir(parents=True)  # killed before they were removed
    folder.open(overwrite=False)
    folder.close()
    assert not any(path.exists() for path in left)
    assert not folder.checkpoints("teacher").exists()
    assert (folder.checkpoints("student") / "checkpoint-1").exists()


def test_a_stage_that_another_version_began_says_so_where_nothing_of_the_recipe_differs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(overwrite=False)
    folder.begin("teacher", {"rate": 0.1})
    with pytest.raises(RecipeError, match=r"What differs:\n  nothing that the recipe says: another version of Stilla"):
        folder.finished("teacher", {"rate": 0.1, "new": None})
    folder.close()
