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
from stilla.errors import RecipeError
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


# --- going on ---

GOING_ON = {"patience": None, "trainer": {}, "epochs": 2, "extend": 4, "learning_rate": 3e-4}  # so slow that it has to


def extended(run: Run) -> dict[str, dict[str, Any]]:
    """How the run's trainings ended, by stage, as its log has it."""
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return {entry["stage"]: entry["extended"] for entry in entries if "extended" in entry}


def judged(values: list[float], part: int) -> int:
    """After how many parts it ends of which these are the evaluations, the lower the better, one a step, by hand; all where
    it never does."""
    for number in range(1, len(values) // part + 1):
        until = (number - 1) * part or math.floor(0.8 * part)
        best, before = min(values[: number * part]), min(values[:until])
        if before - best <= 0.05 * (values[0] - best):
            return number
    return len(values) // part


def test_student_and_baseline_go_on_each_by_its_own_and_it_is_said_why_they_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path, **GOING_ON)
    words, endings, said = capfd.readouterr().err, extended(run), "\n".join(run.scores.notes)
    assert endings.keys() == {"student", "baseline"}
    page = run.report.read_text()
    for stage, measure, sign, whose in (("student", "kl", 1, "training of the student"),
                                        ("baseline", "accuracy", -1, "training on labels alone")):
        found = [sign * one[measure] for one in evaluations(run, stage)]
        ending = endings[stage]
        assert [one["step"] for one in evaluations(run, stage)] == list(range(1, len(found) + 1))  # ceil(8 / 10) steps
        assert ending["part"] == 8
        assert ending["parts"] == len(found) // 8 == judged(found, 8)
        assert ending["measure"] == measure
        assert (ending["why"] == "growing") <= (ending["parts"] == 4)
        assert len(re.findall(f"{stage}: not yet converged at step .*; goes on to step", words)) == ending["parts"] - 1
        how = "stopped at its limit of 4 times its steps" if ending["why"] == "growing" else "converged after "
        assert f"{stage}: {how}" in words
        assert f"{whose}: it {how}" in said
        assert f"{whose}: it {how}" in page
    assert endings["student"]["parts"] > 1, "or this test tells nothing"


def test_a_teacher_goes_on_too(tmp_path: Path) -> None:
    plain = recipe(tmp_path, **GOING_ON)
    teacher = {**plain["teacher"], "train": {**plain["teacher"]["train"], "epochs": 2, "extend": 3}}
    run = distill(**{**plain, "teacher": teacher, "distill": {**plain["distill"], "extend": None},
                     "evaluate": {**plain["evaluate"], "baseline": False}})
    assert extended(run).keys() == {"teacher"}
    assert len(evaluations(run, "teacher")) == 10 * extended(run)["teacher"]["parts"]  # of 30 steps
    assert any(note.startswith("training of the teacher: it ") for note in run.scores.notes)


def test_a_run_that_goes_on_and_was_stopped_is_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(tmp_path / "whole", **GOING_ON, dropout=0.1)
    assert extended(whole)["student"]["parts"] > 1
    with monkeypatch.context() as patch:
        interrupt(patch, "student", 11)  # in the second part
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "parts", **GOING_ON, dropout=0.1)
    torch.manual_seed(1234)
    parts = made(tmp_path / "parts", **GOING_ON, dropout=0.1)
    for role in ("student", "baseline"):
        assert same(whole.folder / role, parts.folder / role), role
    assert extended(whole) == extended(parts)
    assert [note for note in whole.scores.notes if note.startswith("training")] == [
        note for note in parts.scores.notes if note.startswith("training")]


def test_a_finished_run_that_is_asked_for_more_epochs_says_what_can_be_done(tmp_path: Path) -> None:
    run = made(tmp_path, epochs=1)
    before = (run.folder / "student" / "model.safetensors").read_bytes()
    with pytest.raises(RecipeError, match=r"epochs: 1\.0 -> 2\.0") as told:
        made(tmp_path, epochs=2)
    assert "A training is not made longer in hindsight" in str(told.value)
    assert "extend: 4" in str(told.value)
    assert f"student: {{model: {run.folder}}}" in str(told.value)
    assert (run.folder / "student" / "model.safetensors").read_bytes() == before
    with pytest.raises(RecipeError) as told:
        made(tmp_path, epochs=2, learning_rate=1e-3)
    assert "hindsight" not in str(told.value)


def test_a_check_says_how_long_it_may_become_and_what_that_costs(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path, **GOING_ON)))
    assert found.problems == ()
    assert "distill.extend: 2 epochs, and up to 8 epochs while it has not converged, its baseline by itself" in (
        "\n".join(found.notes))
    alone = check(from_options(recipe(tmp_path, **{**GOING_ON, "extend": None})))
    for stage in ("student", "baseline"):
        longer, once = (one.estimate.seconds[stage] for one in (found, alone))
        assert longer.high / longer.low > 2 * once.high / once.low
    few = check(from_options(recipe(tmp_path, **{**GOING_ON, "trainer": {"eval_strategy": "epoch"}})))
    assert "distill.extend: 2 epochs have fewer than 5 evaluations" in "\n".join(few.notes)
