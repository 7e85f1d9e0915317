"""Whole searches: what is tried, on what it goes, what is made once, that a killed one goes on, and what comes of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

import stilla
from stilla.cache import Store
from stilla.errors import RecipeError
from stilla.run import distill
from stilla.series import Searched, trial
from stilla.series.trials import Reached
from stilla.stages.training import Interrupted
from tests import tiny

pytestmark = pytest.mark.slow

OVER = {"student.layers": [1, 2], "distill.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def recipe(folder: Path, **search: Any) -> dict[str, Any]:
    found = tiny.recipe(folder, search={"over": OVER, "trials": 3, **search})
    found["data"]["augment"] = "none"  # else there is nothing to store
    found["teacher"]["train"]["epochs"] = 4
    found["distill"]["epochs"] = 1
    return found


def values(found: Searched) -> list[dict[str, Any]]:
    return [dict(one.values) for one in found.trials]


def reached(found: Any) -> list[float]:
    return [one.reached.quality.value for one in found.trials]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (safetensors.torch.load_file(path / "model.safetensors") for path in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("search")
    return folder, stilla.search(recipe(folder))


def test_a_search_tries_what_it_was_told_and_keeps_the_best(done: tuple[Path, Any]) -> None:
    folder, found = done
    assert len(found.trials) == 3
    assert found.why == "all 3 trials were made"
    for one in found.trials:
        assert one.values["student.layers"] in (1, 2)
        assert 1e-4 <= one.values["distill.learning_rate"] <= 1e-2
    assert found.trials[0].values == {"student.layers": 2, "distill.learning_rate": 1e-3}, "the recipe's own come first"
    assert found.best.reached.quality.value == max(reached(found))
    kept = [one.number for one in found.trials if (folder / "run" / "trials" / f"{one.number:04}" / "student").exists()]
    assert kept == [found.best.number]
    page = (folder / "run" / "search.html").read_text()
    assert "It ended, as all 3 trials were made" in page
    assert page.count("<svg") >= 3


def test_teacher_and_answers_are_made_once(done: tuple[Path, Any]) -> None:
    folder, found = done
    stages = [json.loads(line)["stage"] for path in (folder / "run" / "trials").glob("*/log.jsonl")
              for line in path.read_text().splitlines() if '"learning_rate"' in line]
    trained = [path for path in (folder / "run" / "trials").glob("*/log.jsonl") if '"stage": "teacher"' in path.read_text()]
    assert len(trained) == 1
    assert "baseline" not in stages
    caches = list((folder / "run" / "shared").glob("cache-*"))
    assert len(caches) == 1, "rate and layers are nothing to a teacher's logits"
    assert {one.reached.cache["path"] for one in found.trials} == {str(caches[0])}
    store = Store(caches[0])
    assert sum(len(shard.keys) for shard in store.shards) == len(store), "no trial asked again what is known"


def test_the_best_recipe_makes_the_winner_again(done: tuple[Path, Any], tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    folder, found = done
    assert "search" not in yaml.safe_load(found.best_recipe.read_text())
    again = distill(found.best_recipe, f"output={tmp_path / 'again'}", "cache.path=null", "evaluate.baseline=false")
    winner = folder / "run" / "trials" / f"{found.best.number:04}"
    assert same_weights(again.student, winner / "student")
    assert again.scores.student.quality["validation"]["accuracy"].value == found.best.reached.quality.value
    capsys.readouterr()
    there = distill(found.best_recipe)
    said = capsys.readouterr().err
    assert "teacher: finished before, skipped" in said
    assert "student: finished before, skipped" in said
    assert there.folder == winner
    assert there.scores.split == "test"
    assert there.scores.baseline is not None


def test_the_same_search_again_trains_nothing_and_another_is_refused(done: tuple[Path, Any]) -> None:
    folder, found = done
    again = stilla.search(recipe(folder))
    assert values(again) == values(found)
    assert reached(again) == reached(found)
    with pytest.raises(RecipeError, match=r"holds another search. What differs:\n  distill.0.weight_decay"):
        stilla.search(recipe(folder) | {"distill": {**recipe(folder)["distill"], "weight_decay": 0.5}})
    with pytest.raises(RecipeError, match="holds a search of Stilla, which is no run"):
        distill(recipe(folder), search=None)


def test_no_trial_looks_at_test_data(done: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the labels of the test data exchanged, every trial reaches the same; none holds or measures another split."""
    measured, held = [], []
    whole, blind = trial.measure, trial._blind

    def measure(recipe: Any, task: Any, splits: Any, *others: Any) -> Any:
        measured.append(set(splits))
        return whole(recipe, task, splits, *others)

    def blinded(stages: Any) -> Any:
        found = blind(stages)
        held.append(set(found.place.splits))
        return found

    monkeypatch.setattr(trial, "measure", measure)
    monkeypatch.setattr(trial, "_blind", blinded)
    plain = recipe(tmp_path, trials=2)
    file = Path(plain["data"]["test"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    labels = [row["topic"] for row in rows]
    random.Random(1).shuffle(labels)
    file.write_text("".join(json.dumps({**row, "topic": label}) + "\n" for row, label in zip(rows, labels)))
    again = stilla.search(plain)
    assert values(again) == values(done[1])[:2]
    assert reached(again) == reached(done[1])[:2]
    assert measured == [{"validation"}] * 2
    assert held == [{"train", "validation"}] * 2


def test_a_killed_search_goes_on_as_if_it_had_not_been(done: tuple[Path, Any], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = done
    from stilla.stages import training

    count = 0
    end = training.Bar.on_step_end

    def stopping(self: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
        nonlocal count
        count += self.stage == "student"
        end(self, args, state, control, **others)
        if count == 6:  # in the second trial
            raise Interrupted("stopped")

    monkeypatch.setattr(training.Bar, "on_step_end", stopping)
    with pytest.raises(Interrupted):
        stilla.search(recipe(tmp_path, trials=2))
    monkeypatch.setattr(training.Bar, "on_step_end", end)
    again = stilla.search(recipe(tmp_path, trials=2))
    assert values(again) == values(found)[:2]
    assert reached(again) == reached(found)[:2]


def test_a_trial_that_cannot_be_made_is_said_and_passed_over(tmp_path: Path) -> None:
    plain = recipe(tmp_path, over={"distill.trainer": [{}, {"max_grad_norm": 0.5}]}, trials=9)
    count = 0

    def breaking(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise stilla.TrainingError("the loss is not finite")
        return whole(*given)

    whole = trial.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "measure", breaking)
        found = stilla.search(plain)
    assert [one.problem for one in found.trials] == [None, "the loss is not finite"]
    assert found.why == "all 2 combinations were tried"
    assert any("could not be made" in one for one in found.remarks)


def test_seeds_of_a_trial_are_judged_by_their_mean_and_those_of_a_hopeless_one_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reached, "is_behind", lambda self, best: best.seeds != ())  # the rule: tests/series/test_study.py
    found = stilla.search(recipe(tmp_path, over={"student.layers": [1, 2]}, trials=2, seeds=2))
    first, behind = (one.reached for one in found.trials)
    assert first is not None
    assert behind is not None
    assert len(first.seeds) == 2
    assert first.quality.value == pytest.approx(sum(first.seeds) / 2)
    assert (first.left, behind.left) == (0, 1)
    assert not (tmp_path / "run" / "trials" / "0001" / "seeds").exists()
    assert "seeds left out" in found.page.read_text(encoding="utf-8")


def test_processes_share_trials_through_one_folder(tmp_path: Path) -> None:
    plain = recipe(tmp_path, trials=3)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(plain))
    started = [subprocess.Popen([sys.executable, "-m", "stilla", "search", str(file)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300) for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    found = stilla.search(plain)
    assert len(found.trials) == 3
    assert all(one.reached is not None for one in found.trials)
    assert all("on validation data" in err for _, err in said), "both made some"
    trained = [path for path in (tmp_path / "run" / "trials").glob("*/log.jsonl") if '"stage": "teacher"' in path.read_text()]
    assert len(trained) == 1
