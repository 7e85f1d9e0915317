"""Whole runs whose student is chosen: what fits, what is tried, and that it is chosen once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from stilla.check import check
from stilla.check.planning import plan
from stilla.errors import CompatibilityError, RecipeError, StillaError
from stilla.recipe.file import from_options
from stilla.report.planned import plan_table
from stilla.run import distill
from stilla.stages import sizing, surveying
from tests import tiny
from tests.test_run_vocabulary import recipe as speaking

pytestmark = pytest.mark.slow


def parameters(folder: Path) -> int:
    return sum(one.numel() for one in AutoModelForSequenceClassification.from_pretrained(folder).parameters())


def plan_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "plan" / "plan.json").read_text())
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Of three layers, with room for all but 30 tokens: one of two layers has room for all of them."""
    folder = tmp_path_factory.mktemp("sized")
    recipe = speaking(folder, "text-classification", student={"size": 0.5})
    whole = parameters(Path(recipe["teacher"]["model"]))
    recipe["student"] = {"size": (whole - 30 * 16) / whole}
    return recipe, distill(recipe).folder


def test_the_student_is_below_the_limit_and_what_was_chosen_stands_in_the_recipe(made: tuple[dict[str, Any], Path]) -> None:
    _, folder = made
    plan, written = plan_of(folder), yaml.safe_load((folder / "recipe.yaml").read_text())["student"]
    chosen = next(one for one in plan["tried"] if one["layers"] == plan["chosen"]["layers"])
    assert parameters(folder / "student") <= chosen["parameters"] < parameters(folder / "teacher")
    assert parameters(folder / "baseline") == parameters(folder / "student")
    assert written["layers"] == plan["chosen"]["layers"]
    assert [one["layers"] for one in plan["tried"]] == [3, 2, 1]
    assert [one["tokens"] is None for one in plan["tried"]] == [False, True, True]
    assert "size" not in written or written["size"] is None


def test_the_nearest_to_the_teacher_after_a_short_training_is_chosen(made: tuple[dict[str, Any], Path]) -> None:
    plan = plan_of(made[1])
    assert len(plan["tried"]) > 1
    assert plan["by"] == "kl"
    best = min(plan["tried"], key=lambda one: one["reached"])
    assert best["layers"] == plan["chosen"]["layers"]
    assert not list((made[1] / "checkpoints").glob("trial-*"))


def test_it_is_chosen_once(made: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, folder = made
    before = (folder / "student" / "model.safetensors").read_bytes()
    capsys.readouterr()
    distill(recipe)
    said = capsys.readouterr().err
    assert "candidates" not in said
    assert "student: finished before, skipped" in said
    assert (folder / "student" / "model.safetensors").read_bytes() == before


def test_a_second_check_calls_it_a_run_of_this_recipe(made: tuple[dict[str, Any], Path]) -> None:
    found = check(from_options(made[0]))
    assert not found.problems
    assert any("holds a run of this recipe" in note for note in found.notes)
    assert any("chosen before below the limits" in note for note in found.notes)


def test_a_damaged_choice_is_made_again_and_is_the_same(made: tuple[dict[str, Any], Path]) -> None:
    recipe, folder = made
    file = folder / "plan" / "plan.json"
    whole = file.read_text()
    file.write_text(whole.replace('"reached"', '"Reached"', 1))
    distill(recipe)
    assert json.loads(file.read_text())["chosen"] == json.loads(whole)["chosen"]


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_what_is_too_slow_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
    recipe = tiny.recipe(tmp_path, student={
        "max_latency_ms": 10_000, "latency": {"runtime": runtime, "threads": 1, "batch": 2}})
    recipe["distill"] = {**recipe["distill"], "epochs": 1}
    whole = distill(recipe).folder
    assert plan_of(whole)["chosen"] == {"layers": tiny_depth(whole)}
    monkeypatch.setattr(surveying, "latency", lambda *_: 1e9)  # a busy machine changes nothing of what is chosen
    assert distill(recipe).folder == whole
    none = {**recipe, "student": {"max_latency_ms": 1e-6, "latency": {"runtime": runtime}}, "output": str(tmp_path / "none")}
    with pytest.raises(CompatibilityError, match="no number of layers and tokens stays below the limit"):
        distill(none)


def test_of_layers_that_are_one_width_and_tokens_are_chosen(tmp_path: Path) -> None:
    """ALBERT's share their weights: there is no number of them to choose, nor which."""
    recipe = speaking(tmp_path, "text-classification", student={"size": 0.6, "layers_by": "influence"})
    there = Path(recipe["teacher"]["model"])
    AlbertForSequenceClassification(AlbertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(there)), embedding_size=8, hidden_size=32, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=32, num_labels=2)).save_pretrained(there)
    folder = distill(recipe).folder
    chosen = plan_of(folder)["chosen"]
    assert "layers" not in chosen
    assert parameters(folder / "student") <= 0.6 * parameters(folder / "teacher")
    seen = plan(from_options(recipe))
    assert chosen in [one.candidate.spec for one in seen.students if one.chosen]
    assert "layers" not in [column.key for column in plan_table(seen).columns]
    assert json.loads((folder / "student" / "config.json").read_text())["num_hidden_layers"] == 3
    with pytest.raises(StillaError, match=r"AlbertForSequenceClassification has no stack of layers to cut.*Say a limit"):
        plan(from_options({**recipe, "student": {"width": {"ffn": 0.5}}}))


def tiny_depth(folder: Path) -> int:
    depth: int = json.loads((folder / "teacher" / "config.json").read_text())["num_hidden_layers"]
    return depth


@pytest.mark.parametrize(("student", "said"), [
    ({"size": 0.3, "layers": 2}, "got layers beside a limit"),
    ({"max_parameters": 10, "vocabulary": "data"}, "got vocabulary"),
    ({"size": 1.5}, "expected less than 1"), ({"latency": {"threads": 2}}, "or a limit"),
])
def test_limits_go_alone(tmp_path: Path, student: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        from_options(tiny.recipe(tmp_path, student=student))


def test_two_processes_choose_as_one_does(tmp_path: Path) -> None:
    """Latency is measured, and no two measurements are alike: one process decides."""
    from tests.test_launch import TORCHRUN, largest_difference, run

    for name, size in (("one", 16), ("two", 8)):
        recipe = speaking(tmp_path / name, "text-classification")
        whole = parameters(Path(recipe["teacher"]["model"]))
        for section in (recipe["teacher"]["train"], recipe["distill"]):
            section |= {"batch_size": size, "dropout": 0.0}
        recipe["student"] = {"size": (whole - 30 * 16) / whole, "max_latency_ms": 10_000}
        recipe["evaluate"]["baseline"] = False
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        run(*(TORCHRUN if name == "two" else ()), "-m", "stilla", "run", str(file))
    one, two = (tmp_path / name / "run" for name in ("one", "two"))
    assert plan_of(one)["chosen"] == plan_of(two)["chosen"]
    assert [round(each["reached"], 4) for each in plan_of(one)["tried"]] == [
        round(each["reached"], 4) for each in plan_of(two)["tried"]]
    assert largest_difference(one / "student", two / "student") < 5e-5


def test_a_narrower_student_that_was_chosen_is_as_large_as_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them learns most is a matter of chance here; so one is taken whatever it has reached."""
    recipe = tiny.recipe(tmp_path, student={"size": 0.9})
    recipe["distill"] = {**recipe["distill"], "epochs": 1}
    monkeypatch.setattr(sizing, "_best", lambda tried, **_: next(one for one in tried if one.candidate.ffn < 1))
    folder = distill(recipe).folder
    plan = plan_of(folder)
    chosen = next(one for one in plan["tried"] if one["ffn"] < 1)
    written = yaml.safe_load((folder / "recipe.yaml").read_text())["student"]
    assert written["width"]["ffn"] == plan["chosen"]["width"]["ffn"] == chosen["ffn"]
    assert parameters(folder / "student") == chosen["parameters"] <= 0.9 * parameters(folder / "teacher")
    assert all(one["reached"] is not None for one in plan["tried"])


def test_a_third_of_a_shallow_teacher_whose_tokens_cannot_be_cut_has_a_smaller_hidden_state(tmp_path: Path) -> None:
    """As of whole words, or Marian's: one layer of two is more than half of it."""
    recipe = tiny.recipe(tmp_path, student={"size": 0.33})
    recipe["teacher"]["model"] = tiny.bert(tmp_path / "shallow", layers=1)
    recipe["distill"] = {**recipe["distill"], "epochs": 1}
    assert any("1 layer and 50% of their width" in note for note in check(from_options(recipe)).notes)
    folder = distill(recipe).folder
    written = yaml.safe_load((folder / "recipe.yaml").read_text())["student"]
    made = plan_of(folder)
    assert made["chosen"]["width"].keys() == {"ffn", "heads", "hidden"} <= written["width"].keys()
    assert parameters(folder / "student") == made["tried"][0]["parameters"] <= 0.33 * parameters(folder / "teacher")
    assert next(one for one in plan(from_options(recipe)).students if one.chosen).candidate.hidden < 1


@pytest.mark.parametrize("size", [0.5, 0.4])
def test_a_student_of_language_gives_up_neurons_sooner_than_its_teachers_tokens(tmp_path: Path, size: float) -> None:
    """In whose tokens its teacher is asked: of other pieces than its own that one knows nothing."""
    recipe = speaking(tmp_path, "causal-lm", student={"size": size})
    (said,) = (note for note in check(from_options(recipe)).notes if "below the limits" in note)
    assert said.count("100.0% of the texts' tokens") == said.count("of the texts' tokens")
    assert ("25% of their neurons" if size == 0.5 else "50% of their width") in said
