"""Whole runs that carry the teacher's weights over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stilla.check import check
from stilla.recipe import Recipe
from stilla.run import run as go
from tests import tiny

pytestmark = pytest.mark.slow
TABLE = "bert.embeddings.word_embeddings.weight"


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    made = tiny.recipe(folder, **changes)
    made["teacher"]["train"] |= {"epochs": 2}
    made["student"] = {"model": tiny.bert(folder / "small", layers=2, seed=7), "interpolate": {"share": 1.0},
                       "freeze": ["embeddings"], **changes.get("student", {})}
    made["distill"] = {"max_steps": 6, "learning_rate": 1e-3, "precision": "float32", "pull": {"share": 0.5, "every": 2,
                       "parts": ["layers.0"]}, "objectives": [{"kind": "logits"}, {"kind": "weights", "weight": 0.01}],
                       **changes.get("distill", {})}
    return {**made, "allow_weak_teacher": True}


def test_a_run_starts_holds_and_freezes_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = Recipe.model_validate(recipe(tmp_path))
    run = go(given)
    said = capsys.readouterr()
    assert "student: weights: held to the teacher's weights: " in said.out + said.err
    teacher, student, baseline = (load_file(run.folder / name / "model.safetensors")
                                  for name in ("teacher", "student", "baseline"))
    assert torch.equal(student[TABLE], teacher[TABLE])
    assert torch.equal(baseline[TABLE], teacher[TABLE])
    own = load_file(tmp_path / "small" / "model.safetensors")
    assert not torch.equal(student[TABLE], own[TABLE])
    name = "bert.encoder.layer.0.output.dense.weight"  # of two layers the first is compared with the second of four
    far, near = ((one[name] - teacher[name.replace(".0.", ".1.")]).norm() for one in (baseline, student))
    assert 0 < near < far
    before = (run.folder / "stages.json").read_text(encoding="utf-8")
    go(given)
    assert (run.folder / "stages.json").read_text(encoding="utf-8") == before


def test_check_says_all_that_matches_nothing(tmp_path: Path) -> None:
    made = recipe(tmp_path, distill={"pull": {"share": 0.1, "parts": ["heads"]},
                                     "objectives": [{"kind": "weights", "parts": ["bert.decoder"]}, {"kind": "labels"}]})
    words = "\n".join(check(Recipe.model_validate(made)).problems)
    assert "distill.pull.parts: 'heads' matches no weight" in words
    assert "distill.objectives[0] (weights): `weights`: 'bert.decoder' matches no weight" in words
    assert "Did you mean head?" in words


def test_a_narrower_student_starts_with_the_units_that_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured once: the same command again finds it."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 24}
    made = tiny.recipe(tmp_path)
    made["teacher"]["train"] |= {"epochs": 2}
    made |= {"student": {"config": sizes, "interpolate": {"share": 1.0, "units": "importance"}}, "allow_weak_teacher": True,
             "distill": {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "precision": "float32"}}
    found = check(Recipe.model_validate(made))
    assert found.problems == ()
    assert any(note.startswith("student.interpolate: ") and "100% of its weights" in note for note in found.notes)
    assert found.estimate is not None
    assert "width" in found.estimate.seconds
    run = go(Recipe.model_validate(made))
    said = capsys.readouterr()
    assert "student: starts on the way to its teacher with " in said.out + said.err
    student, teacher = (load_file(run.folder / name / "model.safetensors") for name in ("student", "teacher"))
    kept = load_file(run.folder / "width" / "kept.safetensors")
    name = "bert.encoder.layer.1.intermediate.dense.weight"  # of four layers the fourth
    theirs = name.replace(".1.", ".3.")
    rows, columns = kept[f"{theirs} 0"], kept[f"{theirs} 1"]
    assert (len(rows), len(columns)) == (24, 16)
    assert torch.allclose(student[name], teacher[theirs][rows][:, columns], atol=1e-6)
    assert not torch.equal(rows, torch.arange(24))
    before = (run.folder / "stages.json").read_text(encoding="utf-8")
    go(Recipe.model_validate(made))
    assert (run.folder / "stages.json").read_text(encoding="utf-8") == before
