"""Whole runs with parts of the student for segments of users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.recipe.file import from_options
from stilla.students import read_part
from tests.tasks.recommendation.setting import events
from tests.tasks.recommendation.test_recommendation_runs import QUICK, recipe

pytest.importorskip("peft")

PARTS: dict[str, Any] = {"by": "segment", "epochs": 10, "batch_size": 16, "precision": "float32", "learning_rate": 2e-2}


def segments(path: Path, users: int, seed: int) -> str:
    """Users of `up` take the next item, those of `down` the one before, `rare` ones another: no history tells who is who."""
    draw, rows = np.random.default_rng(seed), []
    for user in range(users):
        segment = "rare" if user % 10 == 9 else ("up", "down")[user % 2]
        place = int(draw.integers(12))
        after = (place + {"up": 1, "down": -1, "rare": 5}[segment]) % 12
        rows += [f"{seed}-{user},i{place},{segment}", f"{seed}-{user},i{after},{segment}"]
    path.write_text("\n".join(["user,item,segment", *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_a_student_has_parts_by_segment_that_win_and_are_loaded_by_transformers(tmp_path: Path) -> None:
    files = {name: segments(tmp_path / f"{name}-segments.csv", users, seed)
             for seed, (name, users) in enumerate({"train": 240, "validation": 40, "test": 160}.items())}
    ask = recipe(tmp_path, data=files, personal={**PARTS, "at_least": 50, "objectives": [{"kind": "labels"}]})
    ask["distill"] = {**QUICK, "epochs": 8, "objectives": [{"kind": "labels"}]}
    run = stilla.distill(ask)
    found = run.scores.grouped
    assert found is not None
    assert [(one.name, one.learnt, one.examples, one.outcome) for one in found.groups] == [
        ("down", 96, 64, "win"), ("up", 120, 80, "win")]
    assert (found.by, found.parts, found.units, found.cold) == ("segment", 2, "users", 16)
    assert found.won is not None
    assert found.lost is not None
    assert found.won > found.lost
    assert set(run.scores.subjects) == {"teacher", "student", "personal", "popularity"}
    assert run.scores.subjects["personal"].cost.parameters == run.scores.student.cost.parameters + found.numbers
    assert "Of 2 values of segment that are compared, 2 win beyond chance" in run.report.read_text(encoding="utf-8")
    assert "## Parts by segment" in (run.student / "README.md").read_text(encoding="utf-8")
    transformers_says_the_same(run)
    stages = (run.folder / "stages.json").read_text()
    stilla.distill(ask)  # finished: nothing is done again
    assert (run.folder / "stages.json").read_text() == stages
    (run.folder / "personal/1/adapter_model.safetensors").unlink()
    assert stilla.distill(ask).scores.grouped == found  # what is lost is made again, the same
    others = evaluate_run(run.folder, events(tmp_path / "others.csv", 30, 3))
    assert others.grouped is None
    assert any("others.csv has no column 'segment'" in note for note in others.notes)
    assert evaluate_run(run.folder, segments(tmp_path / "more.csv", 50, 5)).grouped is not None


def transformers_says_the_same(run: stilla.Run) -> None:
    """The docs' way: the student's folder, and the part of the user's segment where there is one."""
    known = json.loads((run.folder / "personal/parts.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(run.student)
    model.load_adapter(str(run.folder / "personal" / known["parts"]["down"]))
    shared = AutoModelForCausalLM.from_pretrained(run.student)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        ours = read_part(shared, run.folder / "personal" / known["parts"]["down"])(input_ids=ids).logits
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, ours, rtol=0, atol=1e-6)
        assert (ours - shared(input_ids=ids).logits).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "why"), [
    ({"personal": {"by": "town"}}, "personal.by: there is no column 'town'"),
    ({"personal": {"by": "segment", "at_least": 1000}}, "none of the 2 values of 'segment' has so many training examples"),
    ({"personal": {"by": "segment", "lora": {"targets": ["query"]}}}, "personal.lora.targets: Target modules"),
    ({"personal": {"by": "segment", "objectives": [{"kind": "dist"}]}}, "personal.objectives[0] (dist)"),
    ({"personal": {"by": "segment", "objectives": [{"kind": "nothing"}]}}, "personal.objectives[0].kind: got 'nothing'"),
    ({"personal": {"by": "segment", "trainer": {"nothing": 1}}}, "personal.trainer.nothing"),
])
def test_parts_that_cannot_be_made_are_refused_by_a_check(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    found = check(from_options(recipe(tmp_path, **changes)))
    assert any(why in problem for problem in found.problems), found.problems


@pytest.mark.slow
def test_a_check_says_how_many_parts_there_will_be(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path, personal="segment")))
    assert not found.problems
    assert any("2 values of segment get a part of the student, learnt from 120 examples" in note for note in found.notes)
