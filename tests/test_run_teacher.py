"""Whole runs whose teacher learns from more than its student: data of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stilla import data, tasks
from stilla.check import check
from stilla.errors import DataError, RecipeError
from stilla.recipe.file import from_options
from stilla.run import distill
from stilla.stages import unlabelled
from tests import tiny

pytestmark = pytest.mark.slow


def few(folder: Path, **changes: Any) -> dict[str, Any]:
    """The student has twelve of 120 labelled examples, and the others without their labels; the teacher has all."""
    recipe = tiny.recipe(folder, **changes)
    lines = Path(recipe["data"]["train"]).read_text().splitlines()
    own, pool, everything = (folder / f"{name}.jsonl" for name in ("own", "pool", "all"))
    own.write_text("\n".join(lines[:12]) + "\n")
    pool.write_text("\n".join(lines[12:]) + "\n")
    everything.write_text("\n".join(lines) + "\n")
    recipe["data"] = {**recipe["data"], "train": str(own), "unlabelled": str(pool)}
    recipe["teacher"] = {**recipe["teacher"], "train": {**recipe["teacher"]["train"], "data": str(everything)}}
    return recipe


def test_the_teacher_is_the_one_that_those_data_make_and_the_student_has_its_own(tmp_path: Path) -> None:
    asked = few(tmp_path)
    run = distill(asked)
    whole = {**tiny.recipe(tmp_path), "output": str(tmp_path / "whole")}
    other = distill({**whole, "distill": {"max_steps": 1}, "evaluate": {"speed": False}})
    ours, theirs = (load_file(one.folder / "teacher" / "model.safetensors") for one in (run, other))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert distill(asked).scores == run.scores  # everything is found


def test_unlabelled_examples_that_the_teacher_has_seen_stay(tmp_path: Path) -> None:
    recipe = from_options(few(tmp_path))
    splits = data.load(recipe.data, seed=0, teachers=recipe.teacher.own_data)
    task = tasks.find(recipe.task).understand(recipe.data, splits)
    named = data.load_unlabelled(recipe.data, seed=recipe.seed)
    without = {name: split for name, split in splits.items() if name != data.TEACHER}
    found, expected = (unlabelled.read(recipe, task, some, named) for some in (splits, without))
    assert found is not None
    assert expected is not None
    assert len(found) == len(expected) > 0


def test_other_data_of_the_teacher_are_another_run(tmp_path: Path) -> None:
    asked = few(tmp_path)
    asked["distill"] = {"max_steps": 1}
    distill(asked)
    file = Path(asked["teacher"]["train"]["data"])
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(RecipeError, match="teacher"):
        distill(asked)


def test_what_is_wrong_with_them_is_said_where_they_are_named(tmp_path: Path) -> None:
    asked = few(tmp_path)
    asked["teacher"]["train"]["data"] = str(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"teacher\.train\.data: "):
        distill(asked)
    (tmp_path / "empty.jsonl").write_text("")
    asked["teacher"]["train"]["data"] = str(tmp_path / "empty.jsonl")
    assert any("teacher.train.data" in one for one in check(from_options(asked)).problems)


def test_a_check_counts_them(tmp_path: Path) -> None:
    found = check(from_options(few(tmp_path)))
    assert not found.problems
    assert any("12 train" in note and "120 teacher" in note for note in found.notes)


def test_a_class_that_only_the_teacher_has_seen_has_to_be_named(tmp_path: Path) -> None:
    asked = few(tmp_path)
    own = Path(asked["data"]["train"])
    rows = [json.loads(line) for line in own.read_text().splitlines()]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows if row["topic"] != rows[0]["topic"]))
    assert any("name all labels in data.labels" in one for one in check(from_options(asked)).problems)
    asked["data"] = {**asked["data"], "labels": sorted({row["topic"] for row in rows})}
    assert not check(from_options(asked)).problems
