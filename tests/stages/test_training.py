"""Whole runs whose trainings end by themselves or keep a mean of their weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from stilla import Run, distill
from stilla.check import check
from stilla.recipe.file import from_options
from tests import tiny
from tests.test_run import interrupt, same

pytestmark = pytest.mark.slow

PATIENT = {"epochs": 8, "learning_rate": 5e-3, "precision": "float32", "patience": 1,
           "trainer": {"lr_scheduler_type": "constant_with_warmup"}}


def made(folder: Path, **distilling: Any) -> Run:
    return distill(**recipe(folder, **distilling))


def recipe(folder: Path, **distilling: Any) -> dict[str, Any]:
    return tiny.recipe(folder, distill={**PATIENT, **distilling},
                       evaluate={"baseline": True, "resamples": 100, "speed": False})


def evaluations(run: Run, stage: str) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [{"step": entry["step"], **entry["evaluation"]} for entry in entries
            if "evaluation" in entry and entry["stage"] == stage]


def ends(values: list[float], patience: int) -> int:
    """After how many of these, the lower the better, by hand; and all where patience never ends."""
    best, waited = math.inf, 0
    for number, value in enumerate(values, 1):
        best, waited = (value, 0) if value < best else (best, waited + 1)
        if waited >= patience:
            return number
    return len(values)


def test_student_and_baseline_end_each_by_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path)
    words = capfd.readouterr().err
    for stage, measure, sign in (("student", "kl", 1), ("baseline", "accuracy", -1)):
        found = evaluations(run, stage)
        values = [sign * one[measure] for one in found]
        assert len(found) == ends(values, 1) < 8, stage
        best = min(found, key=lambda one: sign * one[measure])
        assert (f"{stage}: stopped after step {found[-1]['step']} of 32, as nothing became better; kept: the weights as of "
                f"step {best['step']} ({measure} {best[measure]:.4g})") in words
    assert all("kl" in one for one in evaluations(run, "student"))
    assert not any("kl" in one for one in evaluations(run, "baseline") + evaluations(run, "teacher"))
    assert len(evaluations(run, "teacher")) == 8  # whose section says nothing of patience
    said = "\n".join(run.scores.notes)
    assert "training of the student: it ended after" in said
    assert "training on labels alone: it ended after" in said
    assert "training of the teacher: it ended" not in said


def test_a_patient_run_that_was_stopped_is_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"average": {"ema": 0.8}, "patience": 2, "dropout": 0.1}
    whole = made(tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        interrupt(patch, "student", 5)  # in the second of three epochs
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "parts", **options)
    torch.manual_seed(1234)
    parts = made(tmp_path / "parts", **options)
    for role in ("student", "baseline"):
        assert same(whole.folder / role, parts.folder / role), role
    assert evaluations(whole, "student") == evaluations(parts, "student")


def test_the_mean_of_the_last_steps_is_what_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = {"patience": None, "epochs": 2}
    averaged, last = made(tmp_path / "averaged", **plain, average={"last": 0.5}), made(tmp_path / "last", **plain)
    words = capfd.readouterr().err
    for role in ("student", "baseline"):
        assert not same(averaged.folder / role, last.folder / role), role
        assert f"{role}: kept: the mean of the weights after each of the last 4 steps\n" in words
        first, second = evaluations(averaged, role)
        assert "accuracy_unaveraged" not in first  # it begins after the first of two epochs
        assert second["accuracy_unaveraged"] == evaluations(last, role)[1]["accuracy"]
    assert same(averaged.folder / "teacher", last.folder / "teacher")


def test_a_check_says_what_an_early_end_has_against_it(tmp_path: Path) -> None:
    def notes(**distilling: Any) -> str:
        found = check(from_options(recipe(tmp_path, **distilling)))
        assert found.problems == ()
        return "\n".join(found.notes)

    assert "patience" not in notes()
    assert "distill.patience: the learning rate falls for as long as the training could be (linear)" in notes(trainer={})
    assert "distill.patience: 9 evaluations, and 8 epochs have no more: it never stops early" in notes(patience=9)


def test_a_check_names_what_leaves_patience_nothing(tmp_path: Path) -> None:
    (problem,) = check(from_options(recipe(tmp_path, trainer={"eval_strategy": "no"}))).problems
    assert problem.startswith("distill.trainer.eval_strategy: got no, and distill.patience counts evaluations")
    (problem,) = check(from_options(recipe(tmp_path, trainer={"metric_for_best_model": "klm"}))).problems
    assert "expected accuracy, macro_f1, macro_precision, macro_recall, matthews or kl. Did you mean kl?" in problem
    labels = {"objectives": [{"kind": "labels"}], "trainer": {"metric_for_best_model": "kl"}}
    (problem,) = check(from_options(recipe(tmp_path, **labels))).problems
    assert "got \"kl\"; expected accuracy, macro_f1" in problem


def test_a_baseline_may_learn_for_longer_than_a_student_with_more_examples(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without patience it would get the student's number of steps."""
    plain = recipe(tmp_path, learning_rate=3e-2, unlabelled=0.5)
    pool = tmp_path / "pool.jsonl"
    words = [*tiny.FILLER, *tiny.TOPICS["food"], *tiny.TOPICS["sport"]]
    pool.write_text("\n".join(json.dumps({"text": " ".join(words[number % 9 : number % 9 + 4])}) for number in range(40)))
    run = distill(**{**plain, "data": {**plain["data"], "unlabelled": str(pool)}})
    student, baseline = evaluations(run, "student"), evaluations(run, "baseline")
    said = capfd.readouterr().err
    assert re.search(r"student: stopped after step (\d+) of (\d+)", said), "or this test tells nothing"
    (planned,) = re.findall(r"student: training, (\d+) steps", said)
    (given,) = re.findall(r"baseline: training, (\d+) steps", said)
    assert abs(int(given) - int(planned)) <= 8  # rounded to whole passes over the labelled ones
    assert student[-1]["step"] < int(planned)
    assert len(baseline) > 0
