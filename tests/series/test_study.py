"""What is tried next, what is left for another process, and when it is enough: without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.scores import Interval
from stilla.series.ending import remarks, why_over
from stilla.series.own import why_no_trial_has_them
from stilla.series.space import Space
from stilla.series.study import Open, Study
from stilla.series.trials import Reached, Trial, best_of, since_better
from stilla.stages.together import TogetherFolder

RATE = {"distill.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}
GRID = {"student.layers": [1, 2, 3], "distill.epochs": [2.0, 4.0]}


def recipe(over: Any = RATE, **search: Any) -> Recipe:
    return from_options({"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 2,
                         "distill": {"epochs": 4.0, "learning_rate": 1e-3}, "search": {"over": over, **search}})


def study(folder: Path, asked: Recipe) -> Study:
    place = TogetherFolder(folder / "run", "search")
    place.open({}, overwrite=False)
    return Study(asked, place, Space.of(asked))


def quality(value: float, *, metric: str = "accuracy", better: bool = True, **more: Any) -> Reached:
    return Reached(metric, better, Interval(value, value - 0.01, value + 0.01), 0.9, value / 0.9, 1000, 60.0, {}, **more)


def made(asked: Study, value: float) -> Open | None:
    one, _ = asked.next()
    if one is not None:
        asked.tell(one.number, quality(value))
        one.folder.close()
    return one


def drawn(folder: Path, trials: int, *, stop_after: int = 0) -> list[dict[str, Any]]:
    asked = recipe(trials=trials)
    one = study(folder, asked)
    for number in range(stop_after):
        made(one, 0.5 + 0.01 * number)
    one = study(folder, asked)  # as another process has it
    while made(one, 0.5 + 0.01 * len(one.trials())):
        pass
    return [dict(each.values) for each in one.trials()]


def test_the_recipes_own_values_are_tried_first(tmp_path: Path) -> None:
    assert study(tmp_path, recipe()).next()[0].values == {"distill.learning_rate": 1e-3}  # type: ignore[union-attr]


@pytest.mark.slow
def test_what_comes_next_does_not_depend_on_where_a_search_was_stopped(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole", 12)
    assert drawn(tmp_path / "stopped", 12, stop_after=5) == whole
    assert len({one["distill.learning_rate"] for one in whole}) == 12, "no draw is repeated after a stop"


@pytest.mark.parametrize("trials", [4, 100])
def test_no_combination_is_tried_twice(tmp_path: Path, trials: int) -> None:
    one = study(tmp_path, recipe(GRID, trials=trials))
    while made(one, 0.5):
        pass
    found = [tuple(each.values.values()) for each in one.trials()]
    assert len(found) == len(set(found)) == min(6, trials)
    assert found[0] == (2, 4.0)


def test_a_trial_of_a_process_that_is_gone_is_taken_up_and_one_at_work_is_not(tmp_path: Path) -> None:
    asked = recipe(trials=3)
    first, other = study(tmp_path, asked), study(tmp_path, asked)
    begun, _ = first.next()
    beside, _ = other.next()
    assert begun is not None
    assert beside is not None
    assert (begun.number, beside.number) == (0, 1), "what is being made is not made twice"
    begun.folder.close()  # as the system does when a process ends
    again, _ = other.next()
    assert again is not None
    assert (again.number, again.values) == (0, begun.values)
    last, _ = other.next()
    assert last is not None
    assert last.number == 2
    assert other.next()[0] is None, "trials that are being made count"


@pytest.mark.slow
def test_half_a_line_of_a_killed_process_costs_nothing_that_was_written_whole(tmp_path: Path) -> None:
    asked = recipe(trials=3)
    made(study(tmp_path, asked), 0.5)
    journal = tmp_path / "run" / "trials.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"worker_id":"a')
    made(study(tmp_path, asked), 0.6)
    assert [one.reached.quality.value for one in study(tmp_path, asked).trials() if one.reached] == [0.5, 0.6]


def test_a_search_for_an_error_keeps_the_smallest(tmp_path: Path) -> None:
    one = study(tmp_path, recipe(trials=3))
    for value in (0.5, 0.2, 0.4):
        asked, _ = one.next()
        assert asked is not None
        one.tell(asked.number, quality(value, metric="rmse", better=False))
        asked.folder.close()
    best = best_of(one.trials())
    assert best is not None
    assert best.number == 1


def finished(*values: float | None, **more: Any) -> list[Trial]:
    return [Trial(number, {"distill.learning_rate": 1e-4 * (number + 1)}, None if value is None else quality(value, **more),
                  "refused" if value is None else None, number) for number, value in enumerate(values)]


@pytest.mark.parametrize(("search", "values", "why"), [
    ({"trials": 3}, (0.5, 0.6, 0.7), "all 3 trials were made"),
    ({"trials": 4}, (0.5, 0.6, 0.7), None),
    ({}, (0.5,) * 19, None),
    ({}, (0.5,) * 20, "all 20 trials were made"),
    ({"minutes": 3}, (0.5, 0.6, 0.7), "the trials took 3 min together, of 3 min"),
    ({"minutes": 4}, (0.5, 0.6, 0.7), None),
    ({"minutes": 0.05}, (0.5,), "the trials took 60 s together, of 3 s"),
    ({"patience": 2}, (0.5, 0.6, 0.6, None), "2 trials in a row brought nothing better"),
    ({"patience": 2}, (0.5, 0.4, 0.6), None),
    ({"patience": 1}, (0.5, 0.4), "1 trial in a row brought nothing better"),
    ({"trials": 1}, (0.5,), "the only trial was made"),
    ({"until": {"quality": 0.7}}, (0.5, 0.7), "trial 1 reached accuracy 70.0 %, of 70.0 % that were asked for"),
    ({"until": {"quality": 0.71}}, (0.5, 0.7), None),
    ({"until": {"retention": 0.77}}, (0.5, 0.7), "trial 1 reached a retention of 77.8 %, of 77.0 % that were asked for"),
])
def test_a_search_ends_by_its_rule_and_says_which(search: dict[str, Any], values: Any, why: str | None) -> None:
    asked = recipe(**search)
    assert asked.search is not None
    assert why_over(asked.search, Space.of(asked), finished(*values)) == why


def test_a_target_of_an_error_is_reached_from_above() -> None:
    asked = recipe(until={"quality": 0.3})
    assert asked.search is not None
    assert why_over(asked.search, Space.of(asked), finished(0.4, metric="rmse", better=False)) is None
    assert "reached rmse" in str(why_over(asked.search, Space.of(asked), finished(0.2, metric="rmse", better=False))).lower()


def test_what_is_open_at_the_end_is_said() -> None:
    asked = recipe(until={"retention": 0.99}, trials=9)
    found = list(remarks(asked, Space.of(asked), [
        *finished(0.5, 0.6, None),
        Trial(3, {"distill.learning_rate": 4e-4}, quality(0.7, growing={"teacher": "made 30 %", "student": "x"}), None, 3),
        Trial(4, {"distill.learning_rate": 9.5e-3}, quality(0.705, growing={"student": "made 20 %"}), None, 4)]))
    said = "\n".join(found)
    assert "the target (99.0 %) was not reached: the best has 78.3 %" in said
    assert "the best came among the last trials" in said
    assert "distill.learning_rate: the best value (0.0095) lies at the upper end" in said
    assert "trial 4: the student's training made 20 %" in said
    assert "the teacher's training made 30 %" in said, "whichever trial trained it"
    assert "trial 3" not in said
    assert "1 other trial lies within the best one's interval" in said
    assert "the best of 5 is chosen by its validation accuracy, which flatters it" in said
    assert "1 trial could not be made; the first: refused" in said


def test_patience_counts_from_the_last_better_one() -> None:
    assert since_better(finished(0.5, 0.6, 0.6, 0.4)) == 2
    assert since_better(finished(0.5, 0.6)) == 0


@pytest.mark.parametrize(("path", "given", "whole", "size"), [
    ("student.layers", {"low": 1, "high": 4}, True, 4), ("student.layers", {"low": 1, "high": 6, "step": 2}, True, 3),
    ("distill.epochs", {"low": 1, "high": 4}, False, float("inf")),
    ("distill.batch_size", {"low": 8, "high": 64, "log": True}, True, 57),
    ("distill.warmup", {"low": 0.0, "high": 0.5}, False, float("inf")),
    ("distill.epochs", {"low": 0.5, "high": 1, "step": 0.5}, False, 2),
    ("distill.warmup", {"low": 0.1, "high": 0.45, "step": 0.1}, False, 4),
    ("distill.epochs", {"low": 1, "high": 4, "step": 1}, False, 4),
])
def test_a_field_of_whole_numbers_gets_whole_numbers(path: str, given: Any, whole: bool, size: float) -> None:
    found = Space.of(recipe({path: given}))
    assert (path in found.whole) is whole
    assert found.size == size


@pytest.mark.slow
def test_a_range_of_fractional_steps_ends_when_each_was_tried_once(tmp_path: Path) -> None:
    one = study(tmp_path, recipe({"distill.warmup": {"low": 0.1, "high": 0.7, "step": 0.1}}, trials=20))
    while made(one, 0.5):
        pass
    assert sorted(each.values["distill.warmup"] for each in one.trials()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert one.next()[1] == "all 7 combinations were tried"


LOGITS = {"epochs": 4.0, "objectives": [{"kind": "labels"}, {"kind": "logits"}]}


@pytest.mark.parametrize(("distill", "over", "own"), [
    (LOGITS, {"distill.objectives.1.temperature": [1, 2, 4]}, 2),
    (LOGITS, {"distill.objectives[1].temperature": {"low": 1, "high": 8}}, 2.0),
    (LOGITS, {"distill.objectives.0.weight": [0, 0.5, 1]}, 1),
    (LOGITS, {"distill.epochs": [2, 4]}, 4), (LOGITS, {"distill.warmup": {"low": 0.0, "high": 0.5}}, None),
])
def test_a_default_is_the_recipes_own_value(tmp_path: Path, distill: Any, over: Any, own: Any) -> None:
    asked = from_options({"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 2,
                          "distill": distill, "search": {"over": over}})
    path = next(iter(over))
    first = study(tmp_path, asked).next()[0]
    assert first is not None
    assert first.values[path] == (asked.distill[0].warmup if own is None else own)
    assert list(why_no_trial_has_them(asked, Space.of(asked))) == []


def test_it_is_said_why_no_trial_has_the_recipes_own_values() -> None:
    asked = from_options({"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 5,
                          "search": {"over": {**RATE, "student.layers": [1, 2]}}})
    said = list(why_no_trial_has_them(asked, Space.of(asked)))
    assert said[0].startswith("the recipe leaves distill.learning_rate open, which a run settles")
    assert said[1].startswith("the recipe's own student.layers (5) is not among what is tried")
    assert said == list(remarks(asked, Space.of(asked), finished(0.5)))[:2], "on the page too"


def test_an_end_of_a_range_is_no_finding_where_others_are_as_good() -> None:
    asked = recipe()
    end = Trial(0, {"distill.learning_rate": 9.9e-3}, quality(0.7), None, 0)
    elsewhere = Trial(1, {"distill.learning_rate": 1e-4}, quality(0.7), None, 1)
    assert any("lies at the upper end" in one for one in remarks(asked, Space.of(asked), [end]))
    assert not any("lies at the" in one for one in remarks(asked, Space.of(asked), [end, elsewhere]))


def test_options_of_objectives_get_whole_numbers_too() -> None:
    asked = from_options({"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 2,
                          "distill": {"objectives": [{"kind": "labels"}, {"kind": "logits", "temperature": 2.0}]},
                          "search": {"over": {"distill.objectives.1.temperature": {"low": 1, "high": 8}}}})
    assert Space.of(asked).whole == frozenset()


def test_lists_hold_anything(tmp_path: Path) -> None:
    over = {"student.layers": [2, {"keep": [0, 3]}], "student.vocabulary": [None, {"data": True}]}
    one = study(tmp_path, recipe(over))
    found = []
    while (asked := made(one, 0.5)) is not None:
        found.append(asked.values)
    assert {"student.layers": {"keep": [0, 3]}, "student.vocabulary": None} in found
    assert len(found) == 4


@pytest.mark.parametrize(("higher", "low", "high", "behind"), [
    (True, 0.5, 0.69, True), (True, 0.5, 0.7, False), (True, 0.95, 0.99, False), (False, 0.91, 0.95, True),
    (False, 0.9, 0.95, False), (False, 0.1, 0.2, False)])
def test_only_what_lies_beyond_both_intervals_is_behind(higher: bool, low: float, high: float, behind: bool) -> None:
    best, other = (Reached("accuracy", higher, Interval((one + two) / 2, one, two), 0.9, None, 1, 1.0, {})
                   for one, two in ((0.7, 0.9), (low, high)))
    assert other.is_behind(best) is behind
