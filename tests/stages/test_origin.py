"""A run is looked at from another folder than it was started in, and after it was moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stilla.after import evaluate_run, export_run, report_run
from stilla.errors import FolderError, RecipeError, StillaError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options, read
from stilla.run import distill
from stilla.runtime import imports
from stilla.stages.folder import RunFolder
from stilla.stages.origin import Origin, elsewhere, from_anywhere, told_where
from tests import tiny


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a model, and a run that was begun there."""
    folder = tmp_path / "project"
    for name in ("bert", "runs/x/start", "other"):
        (folder / name).mkdir(parents=True)
    (folder / "t.csv").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(imports, "_places", [])
    run = RunFolder(Path("runs/x"))
    run.write(run.path / "stages.json", "{}")
    run.write(run.environment, json.dumps({"places": Origin.here(run).plain()}))
    return folder


def recipe(**changes: Any) -> Recipe:
    return from_options({"task": "text-classification", "data": {"train": "t.csv", "validation": {"split": 0.2}},
                         "teacher": "./bert", "student": 3, "output": "runs/x", **changes})


def seen(folder: Path, asked: Recipe) -> Recipe:
    return from_anywhere(asked, RunFolder(folder))


def test_what_is_named_relatively_is_found_where_the_run_began(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = seen(project / "runs/x", recipe())
    assert found.data.train == str(project / "t.csv")
    assert found.teacher.model == str(project / "bert")
    assert found.data.validation == recipe().data.validation
    assert found.distill == recipe().distill


def test_data_that_are_named_by_a_name_are_found_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = {"here": "t.csv", "there": "/nowhere.csv", "split": {"name": "validation_mismatched"}}
    asked = recipe(data={"train": "t.csv", "shifted": shifted})
    monkeypatch.chdir("/")
    found = seen(project / "runs/x", asked)
    assert found.data.shifted == {**asked.data.shifted, "here": str(project / "t.csv")}


@pytest.mark.parametrize("name", ["glue", "org/bert", "s3://bucket/t.csv", "my_models:make"])
def test_names_that_are_no_files_stay(project: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert seen(project / "runs/x", recipe(teacher=name)).teacher.model == name


def test_what_lies_in_a_run_folder_moves_with_it(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(project / "runs/x", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    found = seen(Path("moved"), recipe(teacher="runs/x/start"))
    assert found.teacher.model == str(tmp_path / "moved" / "start")
    assert found.data.train == str(project / "t.csv")
    whole = seen(Path("moved"), recipe(teacher=str(project / "runs/x/start")))
    assert whole.teacher.model == str(tmp_path / "moved" / "start")


def test_a_project_may_be_moved_as_a_whole(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.move(project, tmp_path / "renamed")
    found = seen(Path("renamed/runs/x"), recipe())
    assert found.data.train == str(tmp_path / "renamed" / "t.csv")
    assert "data.train: t.csv is no more where it was; taken from" in capsys.readouterr().err


def test_a_run_that_did_not_write_down_where_it_began_means_the_current_folder(project: Path) -> None:
    (project / "runs/x/environment.json").write_text("{}")
    assert seen(project / "runs/x", recipe()) == recipe()
    (project / "runs/x/environment.json").unlink()
    assert seen(project / "runs/x", recipe()) == recipe()


def test_what_is_gone_is_said_with_where_it_was_looked_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    shutil.rmtree(project / "bert")
    folder = RunFolder(project / "runs/x")
    found = from_anywhere(recipe(), folder)
    with pytest.raises(RecipeError) as refused, told_where(found, folder):
        raise RecipeError("no such folder")
    said = str(refused.value)
    assert "no such folder\nNot there any more" in said
    assert f"teacher.model: {project / 'bert'}. " in said
    assert f"started in, {project}" in said
    assert f"into {project / 'runs/x/recipe.yaml'}" in said
    assert "data.train" not in said


def test_another_mistake_is_left_as_it_is(project: Path) -> None:
    folder = RunFolder(project / "runs/x")
    with pytest.raises(RecipeError, match=r"^labels$"), told_where(from_anywhere(recipe(), folder), folder):
        raise RecipeError("labels")


def test_a_runs_own_recipe_is_not_begun_from_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "runs/x/recipe.yaml"
    assert elsewhere(file, recipe()) == []
    monkeypatch.chdir("/")
    (problem,) = elsewhere(file, recipe())
    assert f"started in {project}" in problem
    assert "(data.train, teacher.model, output)" in problem
    assert f"cd {project}" in problem
    assert elsewhere(project / "mine.yaml", recipe()) == []
    new = {"data": str(project / "t.csv"), "teacher": "org/bert", "output": "/tmp/new"}
    assert elsewhere(file, recipe(**new)) == []
    file.write_text("task: t\ndata: t.csv\nteacher: ./bert\nstudent: 3\noutput: runs/x\n")
    with pytest.raises(RecipeError, match=f"cd {project}"):
        distill(file)


def test_modules_are_looked_for_where_the_run_began_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (project / "beside_the_run.py").write_text("def metric(): return 7\n")
    monkeypatch.chdir("/")
    monkeypatch.setattr(imports, "_places", [])
    seen(project / "runs/x", recipe())
    with pytest.raises(RecipeError, match="cannot be imported"):  # no code, nothing to look for
        imports.import_path("beside_the_run:metric")
    seen(project / "runs/x", recipe(distill={"objectives": [{"kind": "beside_the_run:Objective"}]}))
    assert imports.import_path("beside_the_run:metric")() == 7
    with pytest.raises(RecipeError, match=f"and in {project}, where the run was"):
        imports.import_path("no_such_module:metric")


# --- a whole run ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run, `run`, whose recipe names everything relatively."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    folder.mkdir()
    here = os.getcwd()
    os.chdir(folder)
    try:
        tiny.texts(Path("data"))
        tiny.bert(Path("bert"), layers=2)
        distill(task="text-classification", teacher="./bert", student={"layers": 1}, allow_weak_teacher=True, output="run",
                data={one: f"data/{one}.jsonl" for one in ("train", "validation", "test")},
                distill={"max_steps": 2, "precision": "float32"}, evaluate={"speed": False, "resamples": 100})
    finally:
        os.chdir(here)
    return folder


ACTIONS: dict[str, Callable[[Path], Any]] = {
    "evaluate": evaluate_run,
    "evaluate on new data": lambda run: evaluate_run(run, str(next(run.parent.rglob("test.jsonl")))),
    "export": lambda run: export_run(run, ["onnx"]),
    "report": report_run,
}


@pytest.mark.slow
@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_finished_run_can_be_used_from_anywhere(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (finished / "run/recipe.yaml").read_text()
    ACTIONS[action](finished / "run")
    assert (finished / "run/recipe.yaml").read_text() == before
    assert str(finished) not in (finished / "run/student/README.md").read_text()
    assert str(finished) not in (finished / "run/report.html").read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_moved_run_says_what_it_misses_and_uses_what_it_has(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    environment = tmp_path / "copy/run/environment.json"
    moved = environment.read_text().replace(str(finished), "/no/longer/there")
    monkeypatch.chdir("/")
    environment.write_text(moved)
    with pytest.raises(FolderError, match=r"environment\.json is damaged, or was changed.*take `checksum` out"):
        evaluate_run(tmp_path / "copy/run")
    environment.write_text(moved.replace('"checksum"', '"of before"'))
    evaluate_run(tmp_path / "copy/run")  # the project was moved as a whole
    shutil.move(tmp_path / "copy/run", tmp_path / "deep" / "run")
    assert report_run(tmp_path / "deep/run").is_file()
    for act in (evaluate_run, ACTIONS["export"]):
        with pytest.raises(StillaError, match=r"Not there any more.*teacher\.model: /no/longer/there/bert"):
            act(tmp_path / "deep/run")


@pytest.mark.slow
def test_a_run_is_continued_where_it_was_started(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is printed can be copied."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/student")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="has no student yet") as refused:
        evaluate_run(Path("run"))
    command = str(refused.value).split("`")[1]
    assert command == f"cd {finished} && stilla run {tmp_path}/run/recipe.yaml"
    done = subprocess.run(["sh", "-c", command.replace("stilla run", f"{sys.executable} -m stilla run")], check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(finished / "run/recipe.yaml").output == "run"
