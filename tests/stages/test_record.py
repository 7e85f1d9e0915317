"""What stages made is known by content; a damaged record is said, never believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stilla.errors import FolderError, RecipeError
from stilla.stages.folder import RunFolder
from tests.report.test_damaged import variants


def finished(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.open(overwrite=False)
    folder.student.mkdir()
    for name in ("model.safetensors", "config.json", "README.md"):
        (folder.student / name).write_text(name)
    folder.finish("student", {"epochs": 3}, folder.student)
    folder.scores.write_text("{}")
    folder.finish("scores", {"student": "x"}, folder.scores)
    folder.close()
    return folder


def test_files_that_are_missing_or_changed_are_named(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    assert folder.damage("student") == folder.damage("scores") == folder.damage("unknown") == []
    folder.refuse_damage()
    (folder.student / "README.md").write_text("people may")
    assert folder.damage("student") == []
    (folder.student / "model.safetensors").write_text("another")
    (folder.student / "config.json").unlink()
    folder.scores.write_text("{ }")
    assert folder.damage("student") == [f"{folder.student / 'config.json'} is missing",
                                        f"{folder.student / 'model.safetensors'} is not what was written"]
    assert folder.damage("scores") == [f"{folder.scores} is not what was written"]
    with pytest.raises(FolderError, match=r"(?s)student: .*config\.json is missing.*stilla run .*recipe\.yaml"):
        folder.refuse_damage(leave_out=["scores"])


def test_what_is_made_again_leaves_the_old_beside_it(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder.student / "model.safetensors").write_text("somebody's own")
    folder.clear("student", folder.student)
    assert not folder.student.exists()
    assert (folder.path / "set-aside" / "student" / "model.safetensors").read_text() == "somebody's own"
    folder.clear("student", folder.student)  # nothing there: nothing lost
    assert (folder.path / "set-aside" / "student" / "model.safetensors").exists()


def test_of_what_is_made_in_parts_only_lost_parts_go(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder.student / "config.json").write_text("damaged")
    folder.clear("student", folder.student, by_parts=True)
    assert {path.name for path in folder.student.iterdir()} == {"model.safetensors", "README.md"}


@pytest.mark.slow
def test_a_record_of_another_version_is_understood_or_refused_in_words(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    plain = json.loads((folder.path / "stages.json").read_text())
    del plain["checksum"]
    for what, variant in variants(plain):
        (folder.path / "stages.json").write_text(json.dumps(variant))
        for ask in (lambda: folder.finished("student", {"epochs": 3}), lambda: folder.damage("student"),
                    lambda: folder.fits("scores", {"student": "x"})):
            try:
                ask()
            except RecipeError:
                continue
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def test_a_record_in_which_a_bit_has_flipped_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    file = folder.path / "stages.json"
    text = file.read_text()
    file.write_text(text.replace('"done": true', '"done": false', 1))
    with pytest.raises(RecipeError, match=r"stages\.json: cannot be read .*changed by hand.*--overwrite"):
        folder.finished("student", {"epochs": 3})
    file.unlink()
    file.mkdir()
    with pytest.raises(RecipeError, match="cannot be read"):
        folder.finished("student", {"epochs": 3})


def test_a_run_of_before_contents_were_recorded_is_still_known(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    plain = json.loads((folder.path / "stages.json").read_text())
    old = {name: {key: one[key] for key in ("fingerprint", "done", "inputs")} for name, one in plain.items()
           if name != "checksum"}
    (folder.path / "stages.json").write_text(json.dumps(old))
    assert folder.finished("student", {"epochs": 3})
    assert folder.damage("student") == []
