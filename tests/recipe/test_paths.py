"""Every path of a recipe is what a person means, whichever way the recipe came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import draft, from_options, read
from stilla.recipe.overrides import apply
from stilla.recipe.paths import named
from stilla.recipe.written import dump

PLACES = ["data.train", "data.validation", "data.test", "data.unlabelled.examples.1", "data.shifted.x",
          "teacher.model", "teacher.weights",
          "teacher.processor", "teacher.train.trainer.deepspeed", "student.model", "student.weights", "student.processor",
          "distill.0.trainer.fsdp_config", "cache.path", "output"]


def small(**changes: Any) -> dict[str, Any]:
    return {"task": "text-classification", "data": {"train": "t.csv", "unlabelled": ["a.txt", "b.txt"]},
            "teacher": {"model": "bert"}, "student": {"model": "small"}, "distill": [{}], **changes}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


def value(recipe: Recipe, place: str) -> Any:
    return {".".join(map(str, one)): path for one, path in named(recipe)}[place]


@pytest.mark.parametrize("place", PLACES)
def test_a_tilde_is_the_home_folder_in_every_path(home: str, place: str) -> None:
    plain = apply(small(), [f"{place}=~/x.json"])[0]
    for recipe in (from_options(small(), [f"{place}=~/x.json"]), Recipe.model_validate({"output": "run", **plain})):
        assert value(recipe, place) == f"{home}/x.json"


def test_a_recipe_file_may_lie_in_the_home_folder(home: str) -> None:
    Path(home).mkdir()
    Path(home, "r.yaml").write_text("task: t\ndata: ~/t.csv\nteacher: ~/bert\nstudent: 3\noutput: ~/run\n")
    recipe = read("~/r.yaml")
    assert (recipe.data.train, recipe.output) == (f"{home}/t.csv", f"{home}/run")
    Path("again.yaml").write_text(dump(recipe))
    assert read("again.yaml") == recipe


def test_texts_that_are_no_paths_keep_their_tilde(home: str) -> None:
    recipe = from_options(small(data={"train": "t.csv", "text": "~/"}, distill=[{"trainer": {"run_name": "~/x"}}]))
    assert (recipe.data.text, recipe.distill[0].trainer["run_name"]) == (("~/",), "~/x")


def test_what_can_be_no_path_is_said_with_its_place(home: str) -> None:
    with pytest.raises(RecipeError) as refused:
        from_options(small(output="x" * 300, cache={"path": "~nobody-here/x"}, data={"train": "a\0b", "test": "$HOME/x"}))
    for place in ("output: got", "cache.path: got", "data.train: got", "data.test: got"):
        assert f"recipe: {place}" in str(refused.value)
    assert len(refused.value.problems) == 4


def test_a_split_taken_away_is_still_a_split(home: str) -> None:
    recipe = from_options(small(data={"train": "t.csv", "validation": {"split": 0.2}}))
    assert "data.validation" not in {".".join(map(str, place)) for place, _ in named(recipe)}


def test_a_path_that_is_only_beside_the_recipe_is_said_for_every_field(home: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("t.csv", "weights.safetensors"):
        (tmp_path / "deep" / name).touch()
    file = tmp_path / "deep" / "r.yaml"
    file.write_text("task: t\ndata: t.csv\nteacher: {model: 'a:b', weights: weights.safetensors}\nstudent: 3\n")
    problems = draft(file).problems
    assert [one.partition(": there is no")[0] for one in problems] == ["r.yaml: data.train", "r.yaml: teacher.weights"]
