"""What a run says of how its trainings ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stilla.runtime.files import line_of
from stilla.scores import Best
from stilla.stages.progress import said_in
from stilla.training.converging import Ending, Verdict, late_progress
from tests.report.fakes import intents

FALLING = [(float(step), 1.0 - 0.1 * step) for step in range(1, 11)]
LEVEL = [(float(step), max(0.5, 1.0 - 0.1 * step)) for step in range(1, 11)]


def notes(folder: Path, curves: dict[str, Sequence[tuple[float, float]]], most: int = 10) -> tuple[str, ...]:
    """Of a run with these trainings, each given `most` steps: KL by step."""
    lines = []
    for stage, points in curves.items():
        lines += [line_of({"stage": stage, "step": step, "evaluation": {"kl": value}}) for step, value in points]
        lines.append(line_of({"stage": stage, "step": points[-1][0], "ended_at": points[-1][0] / most}))
    (folder / "log.jsonl").write_text("".join(lines))
    scores = dataclasses.replace(intents(), notes=("said before",))
    before, *found = said_in(scores, folder / "log.jsonl", ("teacher", "student", "baseline")).notes
    assert before == "said before"
    return tuple(found)


def test_late_progress_is_told_from_an_end_that_is_level() -> None:
    assert late_progress(FALLING) == pytest.approx(2 / 9)
    assert late_progress(LEVEL) == 0
    assert late_progress(FALLING[:4]) is None, "too few points to say so"


def test_what_was_still_getting_better_is_said_of_the_first_seed(tmp_path: Path) -> None:
    assert notes(tmp_path, {"teacher": FALLING, "student": LEVEL, "student-1": FALLING, "trial-0": FALLING}) == (
        "training of the teacher: it made 22% of its progress in KL in its last 20%; a longer one may gain more",)


def test_it_is_said_what_ended_before_its_last_step(tmp_path: Path) -> None:
    assert notes(tmp_path, {"student": LEVEL, "baseline": LEVEL[:8]}) == (
        "training on labels alone: it ended after 80% of what it was given, as nothing became better",)


@pytest.mark.parametrize(("why", "gained", "parts", "expected"), [
    ("converged", 0.02, 2, "converged after twice its steps: its last part made 2% of all progress in KL"),
    ("converged", 0.0, 1, "converged after its steps: its last 20% made 0% of all progress in KL"),
    ("growing", 0.4, 3, "stopped at its limit of 3 times its steps, not yet converged: its last part made 40% of all "
                        "progress in KL; a higher limit (extend) may gain more"),
    ("unknown", None, 1, "stopped after its steps, as nobody can say whether it has converged: there are fewer than 5 "
                         "evaluations of KL, or none at its end")])
def test_of_what_might_have_gone_on_it_is_said_why_it_ended(
    tmp_path: Path, why: Any, gained: float | None, parts: int, expected: str
) -> None:
    """By the ends of its parts: within them the learning rate rose again, which is no progress."""
    lines = [line_of({"stage": "student", "step": step, "evaluation": {"kl": value}}) for step, value in FALLING]
    ending = Ending(Verdict(why, gained, parts), "kl", 3, 10)
    (tmp_path / "log.jsonl").write_text("".join(lines) + line_of(
        {"stage": "student", "step": 10, "ended_at": 1.0, "extended": ending.plain()}))
    scores = said_in(dataclasses.replace(intents(), notes=()), tmp_path / "log.jsonl", ("student",))
    assert scores.notes == (f"training of the student: it {expected}",)


def test_a_last_step_that_was_not_logged_is_no_early_end(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(line_of({"stage": "student", "step": 9, "progress": 0.9, "loss": 1.0})
                                        + line_of({"stage": "student", "step": 10, "ended_at": 1.0}))
    assert said_in(dataclasses.replace(intents(), notes=()), tmp_path / "log.jsonl", ("student",)).notes == ()


def test_of_several_stages_only_the_last_ones_weights_are_kept(tmp_path: Path) -> None:
    """A stage whose end is kept, such as a single pass, leaves nothing of what the one before it kept."""
    kept = {"passes": 3.0, "of": 5.0, "metric": "accuracy", "value": 0.9}
    ends: list[tuple[str, dict[str, Any]]] = [
        ("baseline.0", {"best": kept}), ("baseline.1", {}), ("baseline-1.0", {}), ("baseline-1.1", {"best": kept}),
        ("baseline-2.0", {"best": {**kept, "passes": 1.0}}), ("baseline-2.1", {"best": kept})]
    lines = [line_of({"stage": stage, "step": 9, "loss": 1.0}) + line_of({"stage": stage, "step": 10, "ended_at": 1.0, **end})
             for stage, end in ends]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    best = Best(3.0, 5.0, "accuracy", 0.9)
    assert said_in(intents(), tmp_path / "log.jsonl", ("baseline",)).best == {"baseline-1": best, "baseline-2": best}
