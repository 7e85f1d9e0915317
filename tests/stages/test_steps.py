"""A run goes on in another number of processes where its steps stay as large, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stilla.errors import RecipeError
from stilla.runtime.differences import fingerprint
from stilla.stages import steps
from stilla.stages.folder import RunFolder
from stilla.stages.record import Record


def inputs(batch_size: int, accumulate: int = 1, **more: Any) -> dict[str, Any]:
    return {"seed": 1, "distill": [{"epochs": 3, "batch_size": batch_size, "accumulate": accumulate, **more}]}


def recipe(batch_size: int, teachers: int = 8) -> dict[str, Any]:
    train = {"batch_size": teachers, "accumulate": 2}
    return {**inputs(batch_size), "teacher": {"train": train}, "evaluate": {"batch_size": 3}}


def begun(path: Path, processes: int = 2) -> None:
    folder = RunFolder(path, processes)
    folder.open(overwrite=False)
    folder.begin("student", inputs(8))
    folder.close()


def test_every_training_of_a_recipe_is_found_by_its_place() -> None:
    assert steps.sizes(recipe(4), 3) == {"distill.0": 12, "teacher.train": 48}


@pytest.mark.parametrize(("processes", "given"), [(1, inputs(16)), (4, inputs(4)), (1, inputs(8, 2)), (2, inputs(4, 2))])
def test_steps_as_large_are_the_same_stage(processes: int, given: dict[str, Any], tmp_path: Path) -> None:
    begun(tmp_path)
    folder = RunFolder(tmp_path, processes)
    assert not folder.finished("student", given)
    folder.finish("student", given)
    assert RunFolder(tmp_path, 2).finished("student", inputs(8))


@pytest.mark.parametrize("given", [inputs(4), inputs(32), inputs(16, epochs=4)])
def test_other_steps_and_other_epochs_are_another_recipe(given: dict[str, Any], tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(RecipeError, match="the stage `student` of another recipe"):
        RunFolder(tmp_path, 1).finished("student", given)


def test_a_run_is_not_gone_on_with_in_steps_of_another_size(tmp_path: Path) -> None:
    begun(tmp_path)
    alone = RunFolder(tmp_path, 1)
    alone.refuse_other_steps(recipe(8))  # nothing is finished yet
    RunFolder(tmp_path, 2).finish("student", inputs(8))
    with pytest.raises(RecipeError, match=r"distill\.0: 16 examples a step in 2 processes -> 8\n.*Start as many processes"):
        alone.refuse_other_steps(recipe(8))
    alone.refuse_other_steps(recipe(16))
    RunFolder(tmp_path, 2).refuse_other_steps(recipe(8))
    assert alone.finished("student", inputs(8))  # what is finished may be looked at, exported, measured by any number


def test_stages_of_before_say_nothing_of_processes() -> None:
    before = Record(fingerprint=fingerprint(inputs(8)), done=True, inputs=inputs(8))
    assert before.fits(inputs(8), 2)
    assert not before.fits(inputs(4), 2)
    assert before.other_steps({"distill.0": 16}) == []
