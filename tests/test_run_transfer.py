"""One teacher for several students, and a finished student as the start for another task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stilla.check import check
from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import read
from stilla.run import Run
from stilla.run import run as go
from stilla.stages.transfer import of_runs
from stilla.teachers import LiveTeacher
from tests import tiny

pytestmark = pytest.mark.slow
QUICK = {"max_steps": 40, "learning_rate": 3e-3, "batch_size": 16, "precision": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer")


def recipe(folder: Path, name: str, **changes: Any) -> Recipe:
    plain = tiny.recipe(folder, **{"output": str(folder / name), "allow_weak_teacher": True, **changes})
    plain["data"] = {**plain["data"], "augment": "none", **changes.get("data", {})}
    plain["evaluate"] = {"baseline": False, "resamples": 100, "speed": False, **changes.get("evaluate", {})}
    return Recipe.model_validate({**plain, "distill": {**QUICK, **changes.get("distill", {})}})


@pytest.fixture(scope="module")
def first(folder: Path) -> Run:
    return go(recipe(folder, "first"))


def test_another_student_reads_what_the_teacher_told_the_first(
    folder: Path, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(LiveTeacher, "__call__", refuse)
    cache = folder / "first" / "cache"
    before = sorted((one.name, one.stat().st_size) for one in cache.rglob("*") if one.is_file())
    other = recipe(folder, "other", teacher={"model": str(folder / "first" / "teacher")},
                   student={"config": {"num_hidden_layers": 1, "intermediate_size": 16}}, cache={"path": str(cache)})
    assert go(other).student.is_dir()
    assert sorted((one.name, one.stat().st_size) for one in cache.rglob("*") if one.is_file()) == before


@pytest.fixture(scope="module")
def second(folder: Path, first: Run) -> Run:
    """Another task of the same texts: whether they are long."""
    files = {}
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        path = folder / f"long-{split}.jsonl"
        path.write_text("".join(json.dumps({"text": row["text"], "size": "long" if len(row["text"].split()) > 7 else "short"})
                                + "\n" for row in rows), encoding="utf-8")
        files[split] = str(path)
    return go(recipe(folder, "second", data={**files, "label": "size"}, student={"model": str(folder / "first")},
                     teacher={"model": tiny.bert(folder / "untrained", labels=2), "train": {"epochs": 2, "batch_size": 16,
                              "learning_rate": 3e-3, "precision": "float32"}}, evaluate={"baseline": True}))


def test_a_runs_folder_stands_for_its_student(folder: Path, second: Run) -> None:
    assert read(second.folder / "recipe.yaml").student.model == str(folder / "first" / "student")
    assert json.loads((second.student / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 2


def test_what_is_left_of_the_first_task_is_measured_on_its_own_data(first: Run, second: Run) -> None:
    kept = second.scores.kept
    assert kept is not None
    assert kept.metric == first.scores.metric == "accuracy"
    assert kept.before.value == first.scores.student["accuracy"]
    assert (kept.split, kept.examples, kept.whole) == ("test", 60, False)
    assert kept.after.keys() == kept.lost.keys() == {"student", "baseline"}
    for name, one in kept.after.items():
        assert kept.lost[name].value == pytest.approx(one.value - kept.before.value)
    assert kept.after["student"].value != kept.before.value  # its body has learnt something else
    assert any(note.startswith(f"kept of {first.folder} (text-classification, 60 test examples): accuracy ")
               for note in second.scores.notes)
    assert "its head of then on the body of now" in second.report.read_text(encoding="utf-8")


def test_the_same_task_again_is_asked_of_the_student_as_it_is(folder: Path, first: Run) -> None:
    again = go(recipe(folder, "again", teacher={"model": str(folder / "first" / "teacher")},
                      student={"model": str(folder / "first")}, distill={"max_steps": 1, "learning_rate": 1e-8}))
    kept = again.scores.kept
    assert kept is not None
    assert kept.whole
    assert kept.after["student"].value == kept.before.value == again.scores.student["accuracy"]


def test_where_the_first_data_are_gone_the_scores_say_so(folder: Path, second: Run) -> None:
    from stilla.after import evaluate_run

    moved = folder / "data" / "test.jsonl"
    text = moved.read_text(encoding="utf-8")
    moved.unlink()
    try:
        scores = evaluate_run(second.folder)
    finally:
        moved.write_text(text, encoding="utf-8")
    assert scores.kept is None
    assert any("not measured" in note and "test.jsonl" in note for note in scores.notes)


def test_a_run_without_a_student_is_refused_with_the_way_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "stages.json").write_text("{}", encoding="utf-8")
    made = recipe(folder, "third", student={"model": str(tmp_path / "begun")})
    with pytest.raises(RecipeError, match=r"student\.model: .*begun is a run that has no student yet; `stilla run .*` goes"):
        of_runs(made)
    assert any("has no student yet" in problem for problem in check(made).problems)
