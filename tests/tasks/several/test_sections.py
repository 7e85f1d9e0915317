"""What a recipe may say of several tasks, and what is wrong in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options, read
from stilla.recipe.paths import named
from stilla.recipe.written import dump

PARTS: dict[str, Any] = {
    "intents": {"task": "text-classification", "data": "intents.csv"},
    "tags": {"task": "token-classification", "data": {"train": "tags.conllu", "tags": "upos"}, "teacher": "./tagger"},
}


def recipe(parts: dict[str, Any] | None = None, **more: Any) -> Recipe:
    data = {"parts": PARTS if parts is None else parts, **more}
    return from_options({"task": "several", "data": data, "teacher": "./bert", "student": 3, "output": "runs/both"})


def test_every_task_has_the_section_of_its_kind() -> None:
    made = recipe()
    parts = made.data.parts
    assert parts["intents"].data.train == "intents.csv"
    assert parts["tags"].data.tags == "upos"
    assert parts["tags"].teacher.model == "./tagger"
    assert made.data.is_labelled
    assert made.data.tasks == {"intents": "text-classification", "tags": "token-classification"}


def test_it_reads_back_as_it_is_written(tmp_path: Path) -> None:
    made = recipe(temperature=2.0)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump(made), encoding="utf-8")
    assert read(file) == made


def test_its_paths_are_known_as_paths() -> None:
    assert dict(named(recipe()))["data", "parts", "tags", "data", "train"] == "tags.conllu"
    assert dict(named(recipe()))["data", "parts", "tags", "teacher", "model"] == "./tagger"


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("task: several\ndata:\n  parts:\n    a: {task: text-classification, data: a.csv}\n"
                    "    a: {task: text-classification, data: b.csv}\nteacher: ./bert\nstudent: 3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"a.*(twice|duplicate|two|again)"):
        read(file)


@pytest.mark.parametrize(("parts", "words"), [
    ({}, "parts"),
    ({"a": {"task": "causal-lm", "data": "a.txt"}}, r"parts\.a\.task: got 'causal-lm'; expected"),
    ({"a": {"task": "text-classification"}}, r"parts\.a\.data"),
    ({"a": {"task": "text-classification", "data": {"train": "a.csv", "tags": "x"}}}, r"parts\.a\.data\.tags"),
    ({"a": {"task": "text-classification", "data": {"train": "a.csv", "shifted": "b.csv"}}}, "got shifted"),
    ({"a": {"task": "text-classification", "data": "a.csv", "teacher": "mine:Model"}}, "is code"),
    ({"Two words": {"task": "text-classification", "data": "a.csv"}}, "Two words"),
])
def test_what_is_wrong_is_said_where_it_stands(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe(parts)


@pytest.mark.parametrize(("more", "words"), [
    ({"train": "a.csv"}, "got train; every task has data of its own"),
    ({"unlabelled": "a.txt"}, "got unlabelled; every task has data of its own"),
    ({"temperature": 0.5}, "temperature"),
])
def test_what_is_of_one_task_is_not_of_all(more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe(**more)


def test_an_objective_says_its_task_and_others_are_written_as_before() -> None:
    made = from_options({"task": "several", "data": {"parts": PARTS}, "teacher": "./bert", "student": 3, "output": "runs/b",
                         "distill": {"objectives": [{"kind": "labels", "part": "tags"}, {"kind": "logits"}]}})
    first, second = made.distill[0].objectives or ()
    assert first.part == "tags"
    assert "part" not in second.model_dump()
    assert first.model_dump()["part"] == "tags"
