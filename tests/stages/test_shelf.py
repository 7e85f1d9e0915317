"""Stages that runs beside each other take from each other: made once, whole, and by one of them."""

from __future__ import annotations

import threading
from pathlib import Path

from stilla.stages.folder import RunFolder
from stilla.stages.shelf import Shelf

INPUTS = {"data": "a", "seed": 1}


def opened(folder: Path, name: str) -> RunFolder:
    run = RunFolder(folder / name, shelf=Shelf(folder / "shared"))
    run.open(overwrite=False)
    return run


def make(run: RunFolder, text: str = "weights", stage: str = "teacher") -> None:
    run.begin(stage, INPUTS)
    (run.path / stage).mkdir()
    (run.path / stage / "model.safetensors").write_text(text)
    run.finish(stage, INPUTS, run.path / stage)


def test_a_finished_stage_is_taken_over_by_the_next_run(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    assert not one.finished("teacher", INPUTS)
    make(one)
    assert other.finished("teacher", INPUTS)
    assert (other.teacher / "model.safetensors").read_text() == "weights"
    assert not other.damage("teacher")
    assert not other.finished("unlabelled", INPUTS)


def test_other_inputs_are_another_stage_and_students_stay_with_their_run(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    assert not one.finished("teacher", INPUTS)
    make(one)
    assert not one.finished("student", INPUTS)
    make(one, stage="student")
    assert not other.finished("teacher", {**INPUTS, "seed": 2})
    assert not other.finished("student", INPUTS)


def test_a_second_run_waits_for_the_first_and_takes_what_it_made(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    assert not one.finished("teacher", INPUTS)
    found = list[bool]()
    waiting = threading.Thread(target=lambda: found.append(other.finished("teacher", INPUTS)))
    waiting.start()
    waiting.join(0.2)
    assert not found, "it waits"
    make(one)
    waiting.join(10)
    assert found == [True]


def test_a_run_that_ends_without_it_leaves_it_to_the_next(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    assert not one.finished("teacher", INPUTS)
    one.close()
    assert not other.finished("teacher", INPUTS)
    make(other, "others")
    assert opened(tmp_path, "third").finished("teacher", INPUTS)


def test_what_is_damaged_on_the_shelf_is_made_again(tmp_path: Path) -> None:
    one = opened(tmp_path, "one")
    assert not one.finished("teacher", INPUTS)
    make(one)
    (kept,) = (tmp_path / "shared").glob("teacher-*/teacher/model.safetensors")
    kept.unlink()
    assert not opened(tmp_path, "other").finished("teacher", INPUTS)


def test_what_needs_no_files_is_known_too(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    assert not one.fits("teacher-check", INPUTS)
    one.finish("teacher-check", INPUTS)
    assert other.fits("teacher-check", INPUTS)
    assert not other.fits("scores", INPUTS)
