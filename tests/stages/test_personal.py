"""Parts of students of other tasks than recommendation: the same stage, whatever is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stilla
from stilla.check import check
from stilla.recipe.file import from_options
from tests import tiny

pytest.importorskip("peft")


def with_languages(folder: Path) -> dict[str, Any]:
    """The tiny classifier's recipe, on texts that have a language; one has too few for a part."""
    made = tiny.recipe(folder)
    for split in ("train", "validation", "test"):
        path = Path(made["data"][split])
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({**row, "language": "el" if number % 10 == 0 else ("de", "fr")[number % 2]})
                 for number, row in enumerate(rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**made, "personal": {"by": "language", "max_steps": 4, "batch_size": 8, "precision": "float32"}}


@pytest.mark.slow
def test_a_classifier_has_parts_by_language_that_learn_its_layers_too(tmp_path: Path) -> None:
    ask = with_languages(tmp_path)
    ask["evaluate"] |= {"baseline": False}
    ask["teacher"]["train"] |= {"epochs": 2}
    ask["allow_weak_teacher"] = True
    terms = [{"kind": "labels"}, {"kind": "logits"}, {"kind": "hidden"}]
    ask["distill"] = {**ask["distill"], "max_steps": 8, "objectives": terms}
    run = stilla.distill(ask)
    found = run.scores.grouped
    assert found is not None
    assert [one.name for one in found.groups] == ["de", "fr"]
    assert found.cold == 6
    assert found.won is not None
    assert found.tied is not None
    assert found.lost is not None
    assert found.won + found.tied + found.lost == 54
    assert "test" in run.scores.subjects["personal"].agreement
    assert any("one by one" in note and "6 of 60 examples are of others" in note for note in run.scores.notes)


@pytest.mark.slow
def test_what_is_to_be_found_out_makes_no_groups(tmp_path: Path) -> None:
    ask = with_languages(tmp_path)
    ask["personal"] = "topic"
    assert any("which is what is to be found out" in problem for problem in check(from_options(ask)).problems)
