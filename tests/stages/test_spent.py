"""What trainings took, and after how many requests a student has made up for its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stilla.runtime.files import line_of
from stilla.scores import Scores
from stilla.stages import spent
from tests.report.fakes import intents


def logged(folder: Path, *lines: tuple[str, float, float]) -> Path:
    log = folder / "log.jsonl"
    log.write_text("".join(line_of({"stage": stage, "step": number, "loss": 1.0, "seconds": clock, "processor_seconds": cpu})
                           for number, (stage, clock, cpu) in enumerate(lines))
                   + line_of({"stage": "student", "step": 9, "evaluation": {"accuracy": 1.0}}) + '{"stage": "stu')
    return log


def timed(teacher: float | None, student: float | None) -> Scores:
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
                 ("student-1.1", 90.0, 9.0), ("baseline-1", 70.0, 7.0))
    found = spent.said_in(timed(12.0, 2.0), spent.of(log))
    assert found.notes == ("cost: training the student took 30 s by the clock, 44 s of the processor; at the latencies "
                           "measured here it has saved that after 3,000 requests in place of its teacher",)
    assert found.spent["teacher"]["seconds"] == 50.0
    found.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json").spent == found.spent


@pytest.mark.parametrize(("teacher", "student"), [(2.0, 2.0), (2.0, 3.0), (None, 1.0), (2.0, None)])
def test_what_saves_nothing_or_was_not_timed_makes_up_for_nothing(teacher: float | None, student: float | None) -> None:
    assert spent.requests_until_made_up_for(timed(teacher, student), 10.0) is None
