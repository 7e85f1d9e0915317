"""Runs whose teacher is adapted to its student along the way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from stilla.check import check
from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.run import Run, capture
from stilla.run import run as go
from stilla.scores import Scores
from stilla.stages import adapting
from tests import tiny
from tests.equivalence.reptile import source

HOW = {"learning_rate": 1e-3, "quiz": 0.25, "batch_size": 8}
QUICK = {"max_steps": 4, "learning_rate": 3e-3, "batch_size": 16, "precision": "float32", "adapt": HOW,
         "objectives": [{"kind": "labels", "weight": 0.3}, {"kind": "logits"}]}


def recipe(folder: Path, name: str = "run", **changes: Any) -> Recipe:
    plain = tiny.recipe(folder, teacher={"model": str(folder / "start")}, allow_weak_teacher=True, output=str(folder / name))
    return Recipe.model_validate({
        **plain, "student": {"layers": 1}, "distill": QUICK,
        "evaluate": {"baseline": True, "resamples": 100, "speed": False}, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapting")


@pytest.fixture(scope="module")
def first(folder: Path) -> Run:
    return go(recipe(folder))


@pytest.mark.slow
def test_the_adapted_teacher_is_kept_with_how_good_it_was_before_and_after(folder: Path, first: Run) -> None:
    found = first.scores.adapted
    assert found is not None
    assert found.examples == 40
    assert first.scores.teacher.quality["validation"][found.metric].value == pytest.approx(found.before)  # the one before
    before, after = (load_file(path / "model.safetensors") for path in (folder / "start", first.folder / "adapted"))
    moved = max((before[name] - after[name]).abs().max().item() for name in before)
    assert 1e-3 < moved < 5e-3  # four steps of Adam
    kept = AutoModelForSequenceClassification.from_pretrained(first.folder / "adapted")
    assert torch.equal(kept.classifier.weight, after["classifier.weight"])
    said = f"was {found.before:.4g} before and is {found.after:.4g} after"
    assert any(said in note for note in first.scores.notes)
    for page in (first.report, first.student / "README.md"):
        assert said in page.read_text(encoding="utf-8")
    assert Scores.load(first.folder / "scores.json").adapted == found


@pytest.mark.slow
def test_the_baseline_makes_as_many_steps_with_nobody_adapted(first: Run) -> None:
    stages = json.loads((first.folder / "stages.json").read_text(encoding="utf-8"))
    assert stages["student"]["inputs"]["distill"][0]["adapt"]["quiz"] == 0.25
    assert "adapt" not in stages["baseline"]["inputs"]["distill"][0]
    logged = [json.loads(line) for line in (first.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {stage: max(one["step"] for one in logged if one["stage"] == stage) for stage in ("student", "baseline")}
    assert steps == {"student": 4, "baseline": 4}
    each = {stage: first.scores.spent[stage]["flops"] for stage in steps}
    assert each["student"] > 3 * each["baseline"]  # the teacher's passes, and the student's beside its own


@pytest.mark.slow
def test_what_is_finished_is_skipped_and_what_is_lost_made_again(
    folder: Path, first: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(first.folder / "adapted" / "model.safetensors")
    go(recipe(folder))
    assert "student: finished before, skipped" in capsys.readouterr().err
    shutil.rmtree(first.folder / "adapted")
    go(recipe(folder))
    assert re.search(r"student: finished before, but .*adapted/model\.safetensors is missing.*; done again",
                     capsys.readouterr().err)
    again = load_file(first.folder / "adapted" / "model.safetensors")
    assert all(torch.equal(before[name], again[name]) for name in before)
    with pytest.raises(RecipeError, match="the stage `student` of another recipe"):
        go(recipe(folder, distill={**QUICK, "adapt": {**HOW, "learning_rate": 2e-3}}))


@pytest.mark.slow
def test_check_says_what_it_takes(folder: Path) -> None:
    made, plain = (check(recipe(folder, "unmade", distill={**QUICK, "adapt": how, "max_steps": 4000}, cache="none"))
                   for how in (HOW, None))
    assert "distill.adapt: 30 labelled examples are the quiz, and not learnt from; a step takes 4 to 5 times as long as " \
        "with a teacher that is only asked, and a second teacher is trained in memory" in made.notes
    for found in (made, plain):
        assert found.estimate is not None
    assert made.estimate.seconds["student"].low > 2 * plain.estimate.seconds["student"].low  # type: ignore[union-attr]
    assert made.estimate.memory.low > plain.estimate.memory.low  # type: ignore[union-attr]
    assert made.estimate.disk > plain.estimate.disk  # type: ignore[union-attr]


@pytest.mark.slow
def test_check_refuses_a_teacher_behind_an_address(folder: Path) -> None:
    far = {"teacher": {"model": "large", "api": {"url": "https://x.example/v1"}}, "student": {"model": str(folder / "start")}}
    problems = check(recipe(folder, **far)).problems
    assert any(one.startswith("distill.adapt: the teacher is behind an address") for one in problems)


@pytest.mark.parametrize(("changes", "said"), [
    ({}, ""),
    ({"distill": [QUICK, {"max_steps": 2}]}, "distill[0].adapt: what the teacher becomes for one stage is no teacher"),
    ({"teacher": {"model": "./start", "precision": "bfloat16"}}, "distill.adapt: teacher.precision is bfloat16"),
    ({"teacher": "./answers.npz"}, "distill.adapt: the teacher is a file of what a model has said"),
    ({"cache": "dense"}, "distill.adapt: the teacher says something else at every step"),
    ({"cache": {"path": "answers"}}, "distill.adapt: the teacher says something else at every step"),
    ({"data": {"unlabelled": "x.txt", "validation": "y.csv"}}, "distill.adapt: the quiz has labels, and there are no"),
    ({"distill": {**QUICK, "objectives": [{"kind": "logits", "divergence": "hard"}]}}, "distill.adapt: no term of the loss"),
    ({"distill": {**QUICK, "objectives": [{"kind": "logits"}, {"kind": "dist"}]}}, "distill.adapt: `dist` compares"),
])
def test_what_cannot_be_is_refused_in_words(changes: dict[str, Any], said: str) -> None:
    plain = {"task": "text-classification", "data": "x.csv", "teacher": "./start", "student": 1, "distill": QUICK}
    found = adapting.problems(Recipe.model_validate({**plain, "output": "runs/x", **changes}), source(3, 2, 1).task)
    assert len(found) == bool(said)
    assert all(problem.startswith(said) for problem in found)


@pytest.mark.slow
def test_there_is_nothing_to_capture_of_a_teacher_that_changes(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"capture: the teacher is adapted to its student"):
        capture(recipe(folder, "captured"))


def test_a_pull_and_an_adapted_teacher_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ValueError, match="adapt: changes the weights that `pull` goes towards"):
        recipe(folder, distill={**QUICK, "pull": 0.1})
