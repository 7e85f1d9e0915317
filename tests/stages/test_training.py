"""Whole runs whose trainings keep a mean of their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stilla import Run, distill
from tests import tiny
from tests.test_run import same

pytestmark = pytest.mark.slow

PATIENT = {"epochs": 8, "learning_rate": 5e-3, "precision": "float32",
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


def test_the_mean_of_the_last_steps_is_what_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = {"epochs": 2}
    averaged, last = made(tmp_path / "averaged", **plain, average={"last": 0.5}), made(tmp_path / "last", **plain)
    words = capfd.readouterr().err
    for role in ("student", "baseline"):
        assert not same(averaged.folder / role, last.folder / role), role
        assert f"{role}: kept: the mean of the weights after each of the last 4 steps\n" in words
        first, second = evaluations(averaged, role)
        assert "accuracy_unaveraged" not in first  # it begins after the first of two epochs
        assert second["accuracy_unaveraged"] == evaluations(last, role)[1]["accuracy"]
    assert same(averaged.folder / "teacher", last.folder / "teacher")
