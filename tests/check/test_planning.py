"""What sizes of students there are: said before any training, in a table and on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stilla.check.planning import plan
from stilla.cli.app import app
from stilla.errors import RecipeError, StillaError
from stilla.recipe.file import from_options
from stilla.report.planned import in_short, plan_table, write_plan
from tests.test_run_vocabulary import recipe as speaking

pytestmark = pytest.mark.slow


def recipe(folder: Path, **student: Any) -> dict[str, Any]:
    return speaking(folder, "text-classification", student=student)


def test_of_a_limit_those_below_it_are_shown_and_what_a_run_costs(tmp_path: Path) -> None:
    found = plan(from_options(recipe(tmp_path, size=0.97)))
    most = int(0.97 * found.teacher.candidate.parameters)
    assert [one.candidate.layers for one in found.students] == [3, 2, 1]
    assert all(one.candidate.parameters <= most for one in found.students)
    assert found.students[0].candidate.tokens is not None
    assert all(one.milliseconds > 0 for one in (found.teacher, *found.students))
    assert found.by is None
    assert found.estimate.disk > 0
    assert not (tmp_path / "run").exists()


def test_without_a_limit_every_depth_is_shown(tmp_path: Path) -> None:
    found = plan(from_options(recipe(tmp_path, layers=1)))
    assert [one.candidate.spec for one in found.students] == [{"layers": 3}, {"layers": 2}, {"layers": 1}]
    assert in_short(found).startswith("3 students of ")


def test_what_candidates_reached_in_a_run_is_shown(tmp_path: Path) -> None:
    from stilla.run import distill

    asked = recipe(tmp_path, size=0.97)
    distill(asked)
    found = plan(from_options(asked))
    assert found.by == "kl"
    assert all(one.reached is not None for one in found.students)
    assert sum(one.chosen for one in found.students) == 1
    assert "a run has chosen" in in_short(found)
    assert "reached" in [column.key for column in plan_table(found).columns]


def test_the_command_prints_the_table_and_writes_the_page(tmp_path: Path) -> None:
    import yaml

    file, page = tmp_path / "recipe.yaml", tmp_path / "pages" / "plan.html"
    file.write_text(yaml.safe_dump(recipe(tmp_path, size=0.97)), encoding="utf-8")
    said = CliRunner().invoke(app, ["plan", str(file), "--page", str(page)])
    assert said.exit_code == 0, said.output
    assert "texts’ tokens" in said.output
    assert "Estimate of the run" in said.output
    html = page.read_text(encoding="utf-8")
    assert "The run ahead, on this machine" in html
    assert "Latency against size" in html


def test_a_page_shows_markup_in_names_as_text(tmp_path: Path) -> None:
    found = plan(from_options(recipe(tmp_path, layers=1)))
    page = write_plan(found, "<script>alert(1)</script>", tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page


def test_a_recipe_that_cannot_be_run_is_not_planned(tmp_path: Path) -> None:
    with pytest.raises(StillaError, match="stays below the limit"):
        plan(from_options(recipe(tmp_path, max_parameters=5)))
    away = {**recipe(tmp_path, size=0.5), "teacher": {"model": "nobody/nothing-at-all"}}
    with pytest.raises(RecipeError, match="the teacher is not on this machine yet"):
        plan(from_options(away))
