"""What a search cannot try is known before anything is trained, in words."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from stilla.check import check
from stilla.check.estimate import Estimate, Range
from stilla.check.spaces import cost_in_words, out_of_reach, wrong_places
from stilla.errors import RecipeError
from stilla.recipe import Search
from stilla.recipe.file import from_options
from stilla.run import distill
from stilla.tasks.shared import metrics
from tests import tiny

OBJECTIVES = [{"kind": "labels"}, {"kind": "logits", "temperature": 2.0}]


def said_of(over: dict[str, Any]) -> list[str]:
    return wrong_places(from_options({
        "task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3,
        "distill": {"objectives": OBJECTIVES}, "search": {"over": over}}))


@pytest.mark.parametrize(("over", "said"), [
    ({"distill.learning_rat": [1e-3, 1e-4]}, "distill.learning_rat: unknown key. Did you mean learning_rate?"),
    ({"distil.epochs": [1, 2]}, "distil: unknown key. Did you mean distill?"),
    ({"distill.objectives.2.temperature": [1, 2]}, "distill.objectives is a list of 2; say which entry"),
    ({"distill.epochs": [3, -1]}, "search.over: distill.epochs: got -1; expected more than 0"),
    ({"distill.learning_rate": {"low": 1e-3, "high": 100}}, "distill.learning_rate: got 100; expected at most 10"),
    ({"student.layers": [2, 2.5]}, "student.layers: got 2.5"),
    ({"student.size": [0.3, 0.5]}, "got layers beside a limit"),
    ({"distill.objectives.1.kind": ["logits", "logts"]}, "got 'logts'; expected"),
    ({"data.test": ["a.csv", "b.csv"]}, "search.over.data.test: cannot be searched: no trial ever looks at it"),
    ({"seed": [1, 2]}, "a lucky seed is no better student"),
    ({"evaluate.metric": ["accuracy", "macro_f1"]}, "by it all trials are compared"),
    ({"student.layers": [1, 2], "student": [1, 2]}, "search.over: got student.layers beside student, which holds it"),
    ({"distill.epochs": [1, 2], "distill.0.epochs": [1, 2]}, "beside distill.epochs, which is the same field"),
    ({"output": ["a", "b"]}, "every trial has a folder of its own"),
])
def test_what_a_recipe_does_not_take_is_refused_by_its_shape(over: dict[str, Any], said: str) -> None:
    assert any(said in one for one in said_of(over))


def test_values_that_fit_are_not_refused() -> None:
    assert said_of({"distill.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "student.layers": [2, 3, 4],
                    "distill.objectives.1.temperature": [1, 2, 4], "distill.objectives.0.weight": [0, 0.5],
                    "distill.effort": ["quick", "standard"], "data.unlabelled": [None, "more.txt"]}) == []


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert said_of({"student.layers": [2, 3]}) == [
        'search: needs optuna, which is not installed: pip install "stilla[search]"']


def test_a_recipe_with_a_search_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`stilla search` tries them"):
        distill(tiny.recipe(tmp_path, search={"over": {"student.layers": [1, 2]}}))


@pytest.mark.parametrize(("quality", "metric", "said"), [
    (90, None, "got 90; expected a value that `accuracy` can have: it goes from 0 to 1. Write 0.9 for 90 %."),
    (-0.5, None, "`accuracy` can have: it goes from 0 to 1."), (0.9, None, None), (90, "pearson", "it goes from -1 to 1."),
    (-0.5, "pearson", None), (90, "rmse", None), (90, "exact", None),
])
def test_a_search_does_not_wait_for_a_value_that_its_metric_never_has(
    quality: float, metric: str | None, said: str | None
) -> None:
    recipe = from_options({
        "task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3,
        "evaluate": {"metric": metric}, "search": {"over": {"distill.epochs": [1, 2]}, "until": {"quality": quality}}})
    found = out_of_reach(recipe, [*metrics.single_label(), *metrics.regression()])
    assert (found == []) if said is None else (found[0].startswith("search.until.quality: ") and said in found[0])


@pytest.mark.slow
def test_values_are_looked_at_on_the_way_and_the_cost_is_said(tmp_path: Path) -> None:
    over = {"student.layers": [2, 9], "distill.objectives.1.temperature": [1.0, -2.0]}
    plain = tiny.recipe(tmp_path, search={"over": over, "trials": 7, "minutes": 30.0, "until": {"quality": 90}})
    plain["distill"]["objectives"] = OBJECTIVES
    found = check(from_options(plain))
    assert [one.partition(";")[0] for one in found.problems] == ["search.until.quality: got 90"]
    plain["search"]["until"] = {"quality": 0.99}
    found = check(from_options(plain))
    assert any(one.startswith("search.over: student.layers=9: student") for one in found.problems), found.problems
    assert any("search.over: distill.objectives.1.temperature=-2.0: distill.objectives[1].temperature" in one
               for one in found.problems)
    assert len(found.problems) == 2
    plain["search"]["over"] = {"student.layers": [1, 2]}
    found = check(from_options(plain))
    assert found.problems == ()
    (said,) = [one for one in found.notes if one.startswith("search: ")]
    assert "at most 2 trials take" in said  # there are no more combinations
    assert "none begins after 30 min of trials; made once for all: teacher" in said


@pytest.mark.parametrize(("search", "seconds", "said"), [
    ({}, (0.0, 0.02), "takes less than 0.1 s; at most 2 trials take less than 0.1 s"),
    ({}, (0.2, 0.5), "takes 0.2 s to 0.5 s; at most 2 trials take 0.4 s to 1 s"),
    ({"minutes": 0.05}, (60, 61), "2 trials take about 2 min, and none begins after 3 s of trials"),
    ({"over": {"distill.epochs": {"low": 1, "high": 9}}, "trials": 1}, (5000, 20000), "1 trial takes 83 min to 5.6 h"),
    ({"over": {"distill.epochs": {"low": 1, "high": 9}}, "minutes": 90}, (0.01, 2), "at most 2 s; no trial begins after"),
])
def test_what_a_search_costs_is_said_of_the_trials_that_there_can_be(
    search: dict[str, Any], seconds: tuple[float, float], said: str
) -> None:
    asked = Search.model_validate({"over": {"distill.epochs": [1, 2]}, **search})
    cost = Estimate({"student": Range(*seconds), "evaluation": Range(0, 0)}, Range(0, 0), 0, "CPU")
    assert said in cost_in_words(asked, cost)
