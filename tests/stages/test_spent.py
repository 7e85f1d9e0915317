"""What trainings took, and after how many requests a student has made up for its own."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from stilla import Term
from stilla.objectives import Labels
from stilla.runtime.files import line_of
from stilla.scores import Scores
from stilla.stages import spent
from stilla.stages.clocks import timed
from stilla.stages.folder import RunFolder
from stilla.stages.training import Log
from stilla.training.operations import Operations
from tests.equivalence.setting import trainer
from tests.equivalence.test_resume import StopAt
from tests.report.fakes import intents


def logged(folder: Path, *lines: tuple[str, float, float]) -> Path:
    log = folder / "log.jsonl"
    log.write_text("".join(line_of({"stage": stage, "step": number, "loss": 1.0, "seconds": clock, "processor_seconds": cpu})
                           for number, (stage, clock, cpu) in enumerate(lines))
                   + line_of({"stage": "student", "step": 9, "evaluation": {"accuracy": 1.0}}) + '{"stage": "stu')
    return log


def timed_at(teacher: float | None, student: float | None) -> Scores:
    whole = intents()
    subjects = {name: dataclasses.replace(one, cost=dataclasses.replace(
        one.cost, latency_median_ms=milliseconds, latency_p95_ms=milliseconds))
        for (name, one), milliseconds in zip(
            [("teacher", whole.teacher), ("student", whole.student)], [teacher, student], strict=True)}
    return dataclasses.replace(whole, subjects={**whole.subjects, **subjects}, notes=())


def test_a_training_that_was_continued_counts_all_its_parts(tmp_path: Path) -> None:
    log = logged(tmp_path, ("teacher", 5.0, 9.0), ("student", 1.0, 2.0), ("student", 3.0, 5.0), ("student", 2.0, 1.5),
                 ("student", 4.0, 3.0), ("baseline", 7.0, 7.0))
    assert spent.of(log) == {"teacher": {"seconds": 5.0, "processor_seconds": 9.0},
                             "student": {"seconds": 7.0, "processor_seconds": 8.0},
                             "baseline": {"seconds": 7.0, "processor_seconds": 7.0}}
    assert spent.of(tmp_path / "missing") == {}


def test_a_student_makes_up_for_its_training_by_what_it_saves(tmp_path: Path) -> None:
    """30 s at 12 - 2 ms a request: 3,000 requests. Teacher, baseline, other seeds are no cost of it; trials of sizes are."""
    log = logged(tmp_path, ("teacher", 50.0, 9.0), ("trial-0", 6.0, 9.0), ("student.0", 4.0, 5.0), ("student.1", 20.0, 30.0),
                 ("student-1.1", 90.0, 9.0), ("reptile-1", 80.0, 8.0), ("baseline-1", 70.0, 7.0))
    found = spent.said_in(timed_at(12.0, 2.0), spent.of(log))
    assert found.notes == ("cost: making the student took 30 s by the clock, 44 s of the processor; in its teacher's place "
                           "it saves as many seconds in 3,000 requests, one at a time",)
    assert found.spent["teacher"]["seconds"] == 50.0
    found.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json").spent == found.spent


@pytest.mark.parametrize(("teacher", "student"), [(2.0, 2.0), (2.0, 3.0), (None, 1.0), (2.0, None)])
def test_what_saves_nothing_or_was_not_timed_makes_up_for_nothing(teacher: float | None, student: float | None) -> None:
    assert "seconds" not in spent.requests_until_made_up_for(timed_at(teacher, student), {"seconds": 10.0})


def entry(stage: str, seconds: float, **more: Any) -> str:
    return line_of({"stage": stage, "step": 1, "seconds": seconds, "processor_seconds": seconds, **more})


def test_operations_are_counted_for_all_that_entered_also_before_a_stop(tmp_path: Path) -> None:
    """1,000 and 500 numbers at 30 FLOPs, of which the teacher was asked about 700 at 200."""
    (tmp_path / "log.jsonl").write_text(
        entry("student", 2.0, entered=600, asked=300, joules=5.0) + entry("student", 3.0, entered=1000, asked=700, joules=9.0)
        + entry("student", 1.0, entered=400, joules=2.0)
        + entry("student", 2.0, entered=500, joules=4.0, operations={"student": 30.0, "teacher": 200.0})
        + entry("baseline", 1.0, entered=10, operations={"student": 30.0, "teacher": None})
        + entry("teacher", 4.0, entered=10) + entry("trial-0", 4.0, entered=9, asked=3, operations={"student": 1.0}))
    found = spent.of(tmp_path / "log.jsonl")
    assert found["student"] == {"seconds": 5.0, "processor_seconds": 5.0, "joules": 13.0, "flops": 1500 * 30.0 + 700 * 200.0}
    assert found["baseline"]["flops"] == 300.0
    assert "flops" not in found["teacher"]
    assert "flops" not in found["trial-0"]  # nobody knows what the teacher's part was


def test_what_a_student_read_to_choose_forms_counts_as_forwards(tmp_path: Path) -> None:
    known, unknown = {"student": 30.0, "teacher": None, "forward": 9.0}, {"student": 30.0, "teacher": None}
    (tmp_path / "log.jsonl").write_text(
        entry("student", 2.0, entered=600, looked_at=900)
        + entry("student", 1.0, entered=100, looked_at=300, operations=known)
        + entry("student-1", 1.0, entered=100, looked_at=300, operations=unknown))
    found = spent.of(tmp_path / "log.jsonl")
    assert found["student"]["flops"] == 700 * 30.0 + 1200 * 9.0
    assert "flops" not in found["student-1"]


@pytest.mark.slow
def test_a_training_that_was_stopped_and_continued_has_read_as_much_as_one_that_was_not(tmp_path: Path) -> None:
    """Stopped between two lines of its log, and begun again: what it had read by then is neither lost nor counted twice."""
    read = []
    for name, stops in (("whole", (6,)), ("stopped", (3, 6))):
        (tmp_path / name).mkdir()
        folder = RunFolder(tmp_path / name)
        for number, last in enumerate(stops):
            made = trainer(tmp_path / name / "checkpoints", objectives=[Term(Labels())], logging_steps=2,
                           save_strategy="steps", save_steps=3, callbacks=[StopAt(last)])
            log = Log("student", folder, made)
            made.add_callback(log)
            made.train(resume_from_checkpoint=number > 0)
        log.end(Operations(1.0))
        read.append((spent.of(folder.log)["student"]["flops"], made.guard.entered))
    (whole, all_of_it), (stopped, after_the_stop) = read
    assert whole == stopped == all_of_it > after_the_stop


def costing(whole: Scores, **of: tuple[Any, Any]) -> Scores:
    """The scores with these costs of teacher and student."""
    subjects = {name: dataclasses.replace(one, cost=dataclasses.replace(
        one.cost, **{field: pair[number] for field, pair in of.items()}))
        for number, (name, one) in enumerate([("teacher", whole.teacher), ("student", whole.student)])}
    return dataclasses.replace(whole, subjects={**whole.subjects, **subjects})


MEASURED = "measured (RAPL: whole processor packages, idle power and other processes included)"


def test_flops_and_energy_are_made_up_for_by_what_a_request_saves(tmp_path: Path) -> None:
    """9e12 FLOPs at 3e9 less a request: 3,000. 50 kJ at (12 - 2) J less for 1,000: 5,000,000."""
    scores = costing(timed_at(12.0, 2.0), flops=(4e9, 1e9), energy_joules=(12.0, 2.0), energy_method=(MEASURED, MEASURED),
                     batch_size=(32, 32))
    taken = {"student": {"seconds": 30.0, "processor_seconds": 44.0, "flops": 9e12, "joules": 50_000.0}}
    found = spent.said_in(scores, taken)
    assert found.repaid == pytest.approx({"seconds": 3000.0, "flops": 3000.0, "joules": 5e6})
    assert found.notes[-1].endswith(
        "44 s of the processor, 9.00 T FLOPs, 50.0 kJ; in its teacher's place it saves as many seconds in 3,000 requests, "
        "one at a time; as many FLOPs in 3,000 requests; as much energy in 5,000,000 requests, in batches of 32")
    found.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == found


def test_energy_is_what_is_measured_or_stated_and_never_made_up(tmp_path: Path) -> None:
    estimated = "estimated, not measured: FLOPs at an assumed 10 GFLOP per joule"
    taken = {"student": {"seconds": 30.0, "processor_seconds": 44.0, "joules": 50_000.0}}
    for one, other in ((estimated, estimated), (MEASURED, estimated), (None, None)):
        scores = costing(timed_at(12.0, 2.0), energy_joules=(12.0, 2.0), energy_method=(one, other))
        assert set(spent.said_in(scores, taken).repaid) == {"seconds"}
    without = {"student": {"seconds": 30.0, "processor_seconds": 44.0}}
    assert "J" not in spent.said_in(timed_at(12.0, 2.0), without).notes[-1]
    said = "stated, not measured: 65 W while it works"
    scores = costing(timed_at(12.0, 2.0), energy_joules=(12.0, 2.0), energy_method=(said, said))
    found = spent.said_in(scores, without, watts=65.0)
    assert found.spent["student"]["joules"] == 30 * 65
    assert found.repaid["joules"] == pytest.approx(30 * 65 / 0.01)
    assert "1.95 kJ at the 65 W that the recipe states (not measured); in its" in found.notes[-1]


def test_stated_watts_are_no_word_on_energy_that_was_measured() -> None:
    """The student's training was counted by the machine, the baseline's was not."""
    taken = {"student": {"seconds": 30.0, "processor_seconds": 44.0, "joules": 50_000.0},
             "baseline": {"seconds": 10.0, "processor_seconds": 10.0}}
    found = spent.said_in(timed_at(12.0, 2.0), taken, watts=65.0)
    assert found.spent["baseline"]["joules"] == 650.0
    assert "50.0 kJ;" in found.notes[-1]


def test_of_whole_texts_that_are_written_nobody_counts_flops() -> None:
    scores = costing(timed_at(12.0, 2.0), flops=(4e9, 1e9), timed=("forward", "whole texts"))
    assert "flops" not in spent.requests_until_made_up_for(scores, {"flops": 9e12})


def test_what_was_done_beforehand_is_a_cost_of_the_student_also_where_it_was_broken_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def stopped() -> None:
        with timed(folder.append_log, "completions"):
            time.sleep(0.03)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with timed(folder.append_log, "completions", lambda: {"asked": 7, "operations": {"student": 0.0, "teacher": 2.0}}):
        time.sleep(0.04)
    folder.append_log({"stage": "student", "step": 1, "seconds": 1.0, "processor_seconds": 2.0})
    found = spent.of(folder.log)
    assert found["completions"]["seconds"] >= 0.07
    assert found["completions"]["flops"] == 14.0
    both = {"student": found["student"], "completions": {"seconds": 9.0, "processor_seconds": 9.0}}
    assert "took 10 s by the clock, 11 s of the processor" in spent.said_in(timed_at(12.0, 2.0), both).notes[-1]
