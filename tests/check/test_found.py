"""Where problems are said to be."""

from __future__ import annotations

import pytest

from stilla.check.found import Found
from stilla.errors import DataError, all_at_once


@pytest.mark.parametrize(("problem", "said"), [
    ("model: is not there", "student.model: is not there"), ("has no layers", "student: has no layers"),
    ("student.layers: too many", "student.layers: too many"),
    ("data: 3 of 5 examples: each is too long", "data: 3 of 5 examples: each is too long"),
    ("data.text: which column?", "data.text: which column?"),
    ("speech-recognition: other prompts", "student: speech-recognition: other prompts"),
])
def test_a_problem_stands_at_a_place_that_recipes_have(problem: str, said: str) -> None:
    found = Found([])
    with found.attempt("student"):
        raise all_at_once([problem], DataError)
    assert found.problems == [said]
