"""SQuAD's JSON as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stilla.data import sources
from stilla.errors import DataError
from tests.tasks.text import answerers


def written(path: Path, *asked: Any, context: Any = "Ann sees Bern") -> Path:
    paragraphs = [{"context": context, "qas": asked}]
    path.write_text(json.dumps({"version": "2", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def asked(**more: Any) -> dict[str, Any]:
    return {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}], **more}


def test_questions_within_paragraphs_are_the_rows_that_hugging_face_has(tmp_path: Path) -> None:
    found = sources.read(answerers.squad(tmp_path / "x.json", 9))["train"]
    rows = answerers.rows(9)
    assert {name: found[name][:] for name in rows} == rows
    assert set(found["title"]) == {"one", "two"}


def test_a_question_that_is_impossible_has_no_answers_and_plausible_ones_are_none(tmp_path: Path) -> None:
    plausible = [{"text": "Bern", "answer_start": 9}]
    found = sources.read(str(written(tmp_path / "x.json", asked(), asked(
        is_impossible=True, answers=[], plausible_answers=plausible))))["train"]
    assert found["answers"][:] == [{"text": ["Ann"], "answer_start": [0]}, {"text": [], "answer_start": []}]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(asked(is_impossible=True), r"data\[0\].paragraphs\[0\].qas\[0\] is_impossible and has answers"),
     ({"id": "1", "answers": []}, r"qas\[0\] has no 'question'"), (asked(answers="Ann"), "answers is no list"),
     (asked(answers=[{"text": "Ann"}]), r"answers\[0\] has no 'answer_start'"), ("who?", "has no 'question'|has no 'id'")],
)
def test_what_is_not_squads_form_is_named_with_its_place(wrong: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        sources.read(str(written(tmp_path / "x.json", wrong)))


def test_a_paragraph_without_its_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"paragraphs\[0\] has no 'context'"):
        sources.read(str(written(tmp_path / "x.json", asked(), context=None)))
