"""What a check says of time: steady beside other work, and what a run then takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.check import check
from stilla.check import estimate as estimates
from stilla.check.estimate.clock import AGREED, FEW, FEWEST, MOST, PATIENCE, Stopwatch
from stilla.check.estimate.passes import BACKWARD, Line, Passes, plausible
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.run import distill
from tests import tiny


class Machine:
    """Stand-in clocks: a call takes what is set for it, of the processor and by the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> None:
        self.used = self.now = 0.0
        self.threads = threads
        self.order: list[str] = []
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda number: setattr(self, "threads", number))
        self.stopwatch = Stopwatch("cpu", used=lambda: self.used, wall=lambda: self.now)

    def call(self, name: str, seconds: Callable[[int], float], waits: Callable[[int], float] = lambda number: 0.0) -> Any:
        """`seconds` and `waits`: of the n-th call; what it waits for the processor is no time of the processor."""
        count = iter(range(10**6))

        def run() -> None:
            number = next(count)
            self.order.append(name)
            self.used += seconds(number)
            self.now += seconds(number) + waits(number)

        return run


def test_waiting_for_the_processor_is_no_cost() -> None:
    assert Stopwatch("cpu").once(lambda: time.sleep(0.05)) < 0.02


def test_the_least_counts_and_calls_are_made_in_turns(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    disturbed = [0.5, 0.2, 0.1, 0.1, 3.0]
    least = machine.stopwatch.least([machine.call("few", lambda number: disturbed[number]),
                                     machine.call("many", lambda number: 4 * disturbed[number])])
    assert least == pytest.approx([0.1, 0.4])
    assert machine.order == ["few", "many"] * 4


def test_a_quiet_machine_is_measured_in_few_rounds(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    nearly = machine.call("few", lambda number: 0.1 + number * (AGREED - 1) / 20)
    assert machine.stopwatch.least([nearly]) == pytest.approx([0.1])
    assert len(machine.order) == FEWEST


def test_where_times_do_not_agree_it_goes_on_for_a_while(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    machine.stopwatch.least([machine.call("few", lambda number: 0.1 * 0.8**number)])
    assert len(machine.order) == MOST
    machine = Machine(monkeypatch)
    machine.stopwatch.least([machine.call("few", lambda number: 1.01 * PATIENCE)])
    assert len(machine.order) == 1


def test_threads_that_wait_for_each_other_are_compared_with_one_that_waits_for_nobody(monkeypatch) -> None:
    """Their waiting in a loop counts as work: beside other work two threads took 60 times what one takes."""
    machine = Machine(monkeypatch, threads=2)
    spinning = machine.call("few", lambda number: 0.1 if machine.threads == 1 else 6.0, lambda number: 3.0)
    assert machine.stopwatch.shared is False
    assert machine.stopwatch.least([spinning]) == [pytest.approx(0.1 / 2**0.5)]
    assert machine.stopwatch.shared
    assert machine.threads == 2


def test_threads_that_help_each_other_are_believed(monkeypatch) -> None:
    machine = Machine(monkeypatch, threads=2)
    assert machine.stopwatch.least([machine.call("few", lambda number: 0.1 / machine.threads)]) == pytest.approx([0.05])


def test_many_threads_on_a_machine_of_ones_own_are_not_compared_with_one(monkeypatch) -> None:
    machine = Machine(monkeypatch, threads=FEW + 1)
    machine.stopwatch.least([machine.call("few", lambda number: 0.1)])
    assert len(machine.order) == FEWEST


def test_nobody_waits_long_for_a_single_thread(monkeypatch) -> None:
    machine = Machine(monkeypatch, threads=2)
    slow = machine.call("few", lambda number: 2.2 * PATIENCE / machine.threads)
    assert machine.stopwatch.least([slow]) == pytest.approx([1.1 * PATIENCE])
    assert len(machine.order) == 2
    machine = Machine(monkeypatch, threads=FEW)
    assert machine.stopwatch.least([machine.call("few", lambda number: 30.0)]) == [30.0]
    assert len(machine.order) == 1


def passes(seconds: float, flops: float | None, training: float = 3.0) -> Passes:
    return Passes(Line(0.0, seconds), Line(0.0, seconds), Line(0.0, training * seconds), 1.0, flops)


def test_a_student_of_two_layers_takes_no_longer_than_its_teacher_of_six() -> None:
    ours, theirs = plausible(passes(9.0, 2e9), passes(1.0, 6e9), 8)
    assert (ours.forward, ours.answering, ours.training) == (theirs.forward, theirs.answering, theirs.training)
    assert ours.forward == Line(0.0, 1.0)
    assert ours.kept == 1.0


def test_a_teacher_takes_no_longer_than_its_flops_allow() -> None:
    ours, theirs = plausible(passes(1.0, 2e9), passes(100.0, 6e9), 8)
    assert ours == passes(1.0, 2e9)
    assert theirs.forward == Line(0.0, 6.0)


@pytest.mark.parametrize(("ours", "theirs"), [
    (passes(1.0, 2e9), passes(2.5, 6e9)), (passes(1.0, 2e9), passes(1.0, 6e9)),  # whatever is possible
    (passes(9.0, 7e9), passes(1.0, 6e9)), (passes(9.0, None), passes(1.0, 6e9)),  # nothing is known
])
def test_times_that_do_not_contradict_each_other_stay(ours: Passes, theirs: Passes) -> None:
    assert plausible(ours, theirs, 8) == (ours, theirs)


@pytest.mark.parametrize(("looks", "stored", "student", "teacher"), [
    (0.0, None, 3.0, 3.0),
    (8.0, None, 3.0 + 8.0 / 3, 3.0 + 8.0),  # a forward is a third of a step
    (8.0, 4, 3.0 + 8.0 / 3, 4.0),  # of four forms each answer is asked for once
    (0.0, 8, 3.0, 3.0),  # as many as there are passes
])
def test_choosing_forms_costs_forwards_of_both_models(
    looks: float, stored: int | None, student: float, teacher: float
) -> None:
    """`student`, `teacher`: passes over 100 examples, which take 300 s to be learnt and 1,000 s to be answered."""
    recipe = Recipe.model_validate({
        "task": "text-classification", "data": {"train": "a.csv"}, "teacher": {"model": "m"}, "student": {"layers": 1},
        "output": "out", "distill": {"epochs": 3, "batch_size": 10}, "evaluate": {"baseline": True, "speed": False}})
    ours, theirs = (estimates._Model(passes(seconds, None), 0, 0) for seconds in (1.0, 10.0))
    sizes = {"train": 100, "validation": 0, "measured": 0, "learnt": 100, "looked at": 0}
    found = estimates._seconds(recipe, sizes, ours, theirs, "CPU", stored, [looks])
    assert found["student"] == pytest.approx(300 * student + 1000 * teacher)
    assert found["baseline"] == pytest.approx(900)


@pytest.mark.parametrize(("measured", "seconds"), [(True, 2 * 40 + 10 * (40 + 20)), (False, 2 * 40)])
def test_a_teacher_that_is_not_measured_costs_nothing_there(measured: bool, seconds: float) -> None:
    recipe = Recipe.model_validate({
        "task": "text-classification", "data": {"train": "a.csv"}, "teacher": {"model": "m"}, "student": {"layers": 1},
        "output": "out", "evaluate": {"seeds": 2, "baseline": False, "speed": False}})
    ours, theirs = (estimates._Model(passes(one, None), 0, 0) for one in (1.0, 10.0))
    sizes = {"train": 100, "validation": 20, "measured": 40, "learnt": 100, "looked at": 0}
    found = estimates._seconds(recipe, sizes, ours, theirs, "CPU", None, [0.0], measures_teacher=measured)
    assert found["evaluation"] == pytest.approx(seconds)


@pytest.mark.parametrize(("goes_on", "parts"), [(False, 1), (True, 4)])
def test_what_may_go_on_costs_up_to_its_limit_and_ten_evaluations_a_part(goes_on: bool, parts: int) -> None:
    """Of 100 examples, which take 300 s to be learnt and 100 s to be answered, and of 10 that are validated on."""
    recipe = Recipe.model_validate({
        "task": "text-classification", "data": {"train": "a.csv"}, "teacher": {"model": "m"}, "student": {"layers": 1},
        "output": "out", "distill": {"epochs": 3, "batch_size": 10, "extend": 4},
        "evaluate": {"baseline": True, "speed": False}})
    ours, theirs = (estimates._Model(passes(seconds, None), 0, 0) for seconds in (1.0, 10.0))
    sizes = {"train": 100, "validation": 10, "measured": 0, "learnt": 100, "looked at": 0}
    found = estimates._seconds(recipe, sizes, ours, theirs, "CPU", 1, [0.0], goes_on=goes_on)
    assert found["baseline"] == pytest.approx(parts * (3 * 300 + 10 * 10))
    assert found["student"] == pytest.approx(parts * (3 * 300 + 10 * 10) + 1000)  # the teacher answers once


def test_a_line_is_limited_where_whole_batches_take_longer() -> None:
    assert Line(4.0, 0.0).at_most(Line(0.0, 1.0), 2.0, batch_size=1) == Line(0.0, 2.0)
    assert Line(4.0, 0.0).at_most(Line(0.0, 1.0), 2.0, batch_size=4) == Line(4.0, 0.0)
    assert BACKWARD > 3


@pytest.mark.slow
def test_a_check_says_what_each_effort_takes(tmp_path) -> None:
    plain = tiny.recipe(tmp_path, student={"layers": 1}, evaluate={"speed": False, "baseline": True}, distill={},
                        teacher={"model": tiny.bert(tmp_path / "two", layers=2)})
    found = check(from_options({**plain, "output": str(tmp_path / "run")})).estimate
    assert {name: one.passes for name, one in found.efforts.items()} == {"quick": 10, "standard": 30, "thorough": 100}
    assert [name for name, one in found.efforts.items() if one.chosen] == ["standard"]
    quick, standard, thorough = (one.seconds for one in found.efforts.values())
    assert standard == pytest.approx(found.seconds["student"].high + found.seconds["baseline"].high)
    assert 1.0 < standard / quick < 3.1
    assert 1.0 < thorough / standard < 3.5
    said = dict(found.lines())["effort"]
    assert said.startswith("at most, of training: quick, 10 passes: ")
    assert "; standard, 30 (chosen): " in said
    said = {"epochs": 2, "effort": "thorough"}  # the length that is said counts
    named = check(from_options({**plain, "distill": said, "output": str(tmp_path / "run")})).estimate
    assert not named.efforts
    assert "effort" not in dict(named.lines())


# --- real clocks ---


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A student that computes for some seconds in one thread."""
    folder = tmp_path_factory.mktemp("clock")
    plain = tiny.recipe(folder, student={"layers": 2}, distill={"max_steps": 60, "precision": "float32"},
                        evaluate={"speed": False, "resamples": 100}, allow_weak_teacher=True,
                        teacher={"model": tiny.bert(folder / "six", layers=6, width=256)}, cache={"form": "none"})
    return from_options({**plain, "output": str(folder / "run")})


def usual(recipe: Any, stage: str = "student") -> float:
    """Seconds that a check expects, without the range around them."""
    findings = check(recipe)
    assert findings.problems == ()
    return findings.estimate.seconds[stage].low / estimates.FASTER


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Beside processes that compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


def disturbance() -> float:
    """How many times as long as its processor time a loop of half a second takes."""
    used, now = time.thread_time(), time.perf_counter()
    while time.thread_time() - used < 0.5:
        pass
    return (time.perf_counter() - now) / 0.5


@pytest.mark.slow
def test_a_student_takes_about_what_was_said(recipe) -> None:
    """By the clock of the processor, which other work does not stop; by the one on the wall where nothing else works."""
    before = disturbance()
    with threads(1):
        said = usual(recipe)
        distill(**recipe.model_dump(exclude={"distill", "completions", "student"}, exclude_none=True, mode="json"),
                student={"layers": 2}, distill={"max_steps": 60, "precision": "float32"})
    last = [json.loads(line) for line in Path(recipe.output, "log.jsonl").read_text().splitlines()]
    took = max(entry["processor_seconds"] for entry in last if entry["stage"] == "student" and "loss" in entry)
    assert 0.5 < said / took < 2.0
    if max(before, disturbance()) > 1.1:
        pytest.skip(f"too much else on this machine for its clock: {before:.2f} times the processor's")
    assert 0.5 < said / max(entry["seconds"] for entry in last if "seconds" in entry) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_check_says_the_same_again_beside_other_work(recipe, number: int) -> None:
    if number > (os.cpu_count() or 1):
        pytest.skip("one processor")
    with threads(number), busy(os.cpu_count() or 1):
        said = [usual(recipe) for _ in range(3)]
    assert max(said) < 2 * min(said), said
