"""Runs whose student starts with a body that other tasks have made quick to adapt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stilla.check import check
from stilla.errors import DataError, RecipeError
from stilla.recipe import Recipe
from stilla.recipe.paths import named
from stilla.run import Run
from stilla.run import run as go
from stilla.stages import reptile
from stilla.training.reptile import Learning
from tests import tiny
from tests.tasks.text import answerers

QUICK = {"max_steps": 4, "learning_rate": 3e-3, "batch_size": 16, "precision": "float32"}


def other_task(folder: Path, name: str, *, seed: int, answer: Any) -> str:
    """The tiny texts with other labels."""
    texts = tiny.texts(folder / name, train=60, validation=3, test=3, seed=seed)["train"]
    rows = [json.loads(line) for line in Path(texts).read_text(encoding="utf-8").splitlines()]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": row["text"], "topic": answer(row)}) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def recipe(folder: Path, name: str = "run", **changes: Any) -> Recipe:
    where = folder / "other"
    tasks = [other_task(where, "long", seed=1, answer=lambda row: "long" if len(row["text"].split()) > 7 else "short"),
             other_task(where, "food", seed=2, answer=lambda row: row["topic"] if row["topic"] != "sport" else "neither")]
    plain = tiny.recipe(folder, teacher={"model": str(folder / "start")}, allow_weak_teacher=True, cache="none",
                        output=str(folder / name))
    how = {"tasks": tasks, "steps": 12, "tasks_per_step": 2, "inner_steps": 2, "examples": 16, "learning_rate": 1e-2}
    return Recipe.model_validate({
        **plain, "student": {"layers": 1, "reptile": {**how, **changes.pop("reptile", {})}}, "distill": QUICK,
        "evaluate": {"baseline": True, "resamples": 100, "speed": False}, **changes})


@pytest.mark.slow
def test_passages_of_other_kinds_make_a_start_of_who_answers_from_them(tmp_path: Path) -> None:
    quick = {**QUICK, "batch_size": 8}
    run = go(Recipe.model_validate({
        "task": "question-answering", "allow_weak_teacher": True, "output": str(tmp_path / "run"),
        "data": {"train": answerers.squad(tmp_path / "train.json", 24), "max_length": 32, "longest_answer": 6},
        "teacher": {"model": answerers.folder(tmp_path / "start"), "train": quick}, "distill": quick,
        "student": {"layers": 1, "reptile": {
            "tasks": [answerers.squad(tmp_path / f"{seed}.json", 12, seed) for seed in (1, 2)], "steps": 2,
            "tasks_per_step": 2, "inner_steps": 2, "batch_size": 4, "examples": 8}},
        "evaluate": {"resamples": 100, "speed": False}}))
    body = load_file(run.folder / "reptile" / reptile.FILE)
    start = load_file(run.folder / "teacher" / "model.safetensors")
    assert not any(name.startswith("qa_outputs") for name in body)
    assert max((body[name] - start[name]).abs().max().item() for name in body if name in start) > 1e-4


def test_a_recipe_takes_other_tasks_by_their_files() -> None:
    plain = {"task": "text-classification", "data": {"train": "x.csv"}, "teacher": {"model": "./bert"}, "output": "runs/x"}
    made = Recipe.model_validate({**plain, "student": {"layers": 1, "reptile": {"tasks": ["a.csv", "b.csv"]}}})
    assert made.student.reptile is not None
    assert made.student.reptile.tasks == ("a.csv", "b.csv")
    assert (("student", "reptile", "tasks", 1), "b.csv") in list(named(made))  # found, wherever the run is looked at
    for student, said in (({"layers": 1, "reptile": {"tasks": ["a.csv"]}}, "at least 2"),
                          ({"layers": 1, "lora": {"r": 2}, "reptile": {"tasks": ["a", "b"]}}, "with lora adapters alone"),
                          ({"static": True, "reptile": {"tasks": ["a", "b"]}}, "static: true has none")):
        with pytest.raises(ValueError, match=said):
            Recipe.model_validate({**plain, "student": student})
    assert reptile.problems(made) == []
    of_a_vocabulary = Recipe.model_validate({**plain, "task": "causal-lm", "student": made.student})
    assert "of `causal-lm` it is not known which is which" in reptile.problems(of_a_vocabulary)[0]


def test_other_tasks_are_read_as_the_data_are_and_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    how = made.student.reptile
    assert how is not None
    found = reptile.read(made, how)
    assert [task.class_names() for task, _ in found.values()] == [("long", "short"), ("food", "music", "neither")]
    named = made.model_copy(update={"data": type(made.data).model_validate({
        "train": made.data.train, "label": "topic", "labels": ["food", "music", "sport"], "augment": "light"})})
    assert [task.class_names() for task, _ in reptile.read(named, how).values()] == [
        ("long", "short"), ("food", "music", "neither")]  # the names are the data's own
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"text": "a", "topic": "x"}\n{"text": "", "topic": "y"}\n', encoding="utf-8")
    wrong = how.model_copy(update={"tasks": (str(tmp_path / "none.jsonl"), str(odd), how.tasks[0], how.tasks[0])})
    with pytest.raises(DataError) as caught:
        reptile.read(made, wrong)
    places = [problem.partition(":")[0] for problem in caught.value.problems]
    assert places == ["student.reptile.tasks[0]", "student.reptile.tasks[1]", "student.reptile.tasks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reptile")


@pytest.fixture(scope="module")
def first(folder: Path) -> Run:
    return go(recipe(folder))


@pytest.mark.slow
def test_student_and_baseline_start_with_the_body_that_was_made_once(
    folder: Path, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = json.loads((first.folder / "stages.json").read_text(encoding="utf-8"))
    assert [name for name in ("reptile", "student", "baseline") if name in stages] == ["reptile", "student", "baseline"]
    assert stages["student"]["inputs"]["reptile"] == stages["baseline"]["inputs"]["reptile"]
    body = load_file(first.folder / "reptile" / "body.safetensors")
    teacher = load_file(folder / "start" / "model.safetensors")
    assert not {name for name in body if name.startswith("classifier")}
    assert all(not torch.equal(value, teacher[name]) for name, value in body.items() if name.endswith("query.weight"))
    for role in ("student", "baseline"):  # four steps on end not far from where they began
        made = load_file(first.folder / role / "model.safetensors")
        name = "bert.encoder.layer.0.attention.self.query.weight"
        assert (made[name] - body[name]).norm() < 0.5 * (body[name] - teacher[name]).norm()
    logged = [json.loads(line) for line in (first.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["step"] for one in logged if one["stage"] == "reptile"] == [10, 12]
    assert first.scores.spent["reptile"]["processor_seconds"] > 0

    def refuse(*_: Any) -> Any:
        raise AssertionError("learnt again")

    monkeypatch.setattr(Learning, "step", refuse)
    go(recipe(folder))


@pytest.mark.slow
def test_stop_and_resume_equals_uninterrupted(folder: Path, first: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, step = load_file(first.folder / "reptile" / "body.safetensors"), Learning.step

    def stopped(self: Learning, number: int, body: Any) -> Any:
        if number == 11:
            raise KeyboardInterrupt
        return step(self, number, body)

    monkeypatch.setattr(Learning, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(recipe(folder, "again"))
    done: list[int] = []

    def counted(self: Learning, number: int, body: Any) -> Any:
        done.append(number)
        return step(self, number, body)

    monkeypatch.setattr(Learning, "step", counted)
    go(recipe(folder, "again"))
    assert done == [10, 11]
    logged = [json.loads(line) for line in (folder / "again" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    begun = [one for one in logged if one["stage"] == "reptile" and "loss" not in one]
    assert [(one["step"], one["seconds"]) for one in begun] == [(10, 0.0)]  # what was taken is counted from here again
    found = load_file(folder / "again" / "reptile" / "body.safetensors")
    assert all(torch.equal(whole[name], found[name]) for name in whole)
    assert not (folder / "again" / "checkpoints" / "reptile").exists()
    with pytest.raises(RecipeError, match="the stage `reptile` of another recipe"):
        go(recipe(folder, "again", reptile={"rate": 0.5}))


@pytest.mark.slow
def test_check_says_what_the_start_is_made_of_and_costs(folder: Path) -> None:
    found = check(recipe(folder, "unmade"))
    assert "student.reptile: 2 other tasks with 120 examples; 48 optimiser steps of 16 examples before the student's own" in (
        found.notes)
    assert found.estimate is not None
    assert found.estimate.seconds["reptile"].high > 0
    lost = recipe(folder, "unmade", reptile={"tasks": ["./none.jsonl", "./neither.jsonl"]})
    assert sum("student.reptile.tasks[" in problem for problem in check(lost).problems) == 2
