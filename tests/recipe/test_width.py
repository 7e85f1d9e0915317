"""What a recipe may say of a student's width."""

from __future__ import annotations

from typing import Any

import pytest

from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.recipe.written import dump
from stilla.recipe.yaml import load

SMALL = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert"}


def recipe(student: object, *overrides: str) -> Recipe:
    return from_options({**SMALL, "student": student}, overrides)


def test_a_share_is_meant_of_all_kinds_and_a_kind_that_is_not_named_stays_whole() -> None:
    width = recipe({"width": 0.5}).student.width
    assert width is not None
    assert (width.ffn, width.heads, width.hidden, width.rounds, width.examples) == (0.5, 0.5, 0.5, 4, 256)
    width = recipe({"layers": 3, "width": {"ffn": 1024}}).student.width
    assert width is not None
    assert (width.ffn, width.heads, width.hidden) == (1024, 1.0, 1.0)


def test_it_reads_back_as_it_was_written() -> None:
    for student in ({"width": 0.5}, {"layers": 3, "width": {"ffn": 1024, "rounds": 2}}):
        made = recipe(student)
        assert from_options(load(dump(made), "")) == made


def test_it_can_be_said_on_the_command_line() -> None:
    assert recipe({"layers": 3}, "student.width=0.5").student.width == recipe({"width": 0.5}).student.width
    width = recipe({"width": {"ffn": 0.5}}, "student.width.rounds=2").student.width
    assert width is not None
    assert (width.ffn, width.rounds) == (0.5, 2)


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ({"width": 0}, "student.width"), ({"width": 1.5}, "student.width: got 1.5; expected a share, above 0 and up to 1"),
        ({"width": 768}, "or {ffn: 1024}: only of one kind can there be so many"),
        ({"width": 1.0}, "nothing is cut: give ffn, heads or hidden a share below 1, or leave width out"),
        ({"width": {"ffn": 1.0}}, "nothing is cut"), ({"width": {"ffn": -1}}, "student.width.ffn: got -1"),
        ({"width": {"ffn": 1.5}}, "student.width.ffn: got 1.5"), ({"width": {"fnn": 0.5}}, "Did you mean ffn?"),
        ({"width": "half"}, "student.width: got"), ({"width": True}, "student.width: got true"),
        ({"width": {"ffn": 0.5, "rounds": 0}}, "student.width.rounds: got 0; expected at least 1"),
        ({"width": 0.5, "config": {"num_hidden_layers": 2}},
         "got width and config; expected width alone, or with layers or vocabulary"),
        ({"width": 0.5, "model": "./small"}, "Name that model as the teacher of a run that cuts it"),
        ({"width": 0.5, "size": 0.3}, "got width beside a limit (size, max_parameters, ...)"),
        ({}, "got none; expected exactly one of layers, config and model, or width"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_in_words(student: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe(student)
    assert said in str(refused.value)
