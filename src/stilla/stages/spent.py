"""What a run's trainings took, by its log; and after how many requests a student has made up for its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stilla.runtime.files import read_line
from stilla.scores import Scores

CLOCKS = ("seconds", "processor_seconds")
NOT_THE_STUDENTS = ("teacher", "baseline", "student-", "personal")
"""How trainings begin that are no cost of a student: there would be a teacher anyway, the baseline and further seeds are
there to compare, and parts for groups come on top."""


def of(log: Path) -> dict[str, dict[str, float]]:
    """By stage, seconds by the clock and of the processor. A stage that was continued counts from zero each time; what was
    lost with a stop is in no log, and missing here."""
    found: dict[str, dict[str, float]] = {}
    before: dict[tuple[str, str], float] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        try:
            entry = read_line(line)
            stage, now = str(entry["stage"]), {clock: float(entry[clock]) for clock in CLOCKS}
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # an evaluation, or half of a line
        for clock, seconds in now.items():
            last = before.get((stage, clock), 0.0)
            more = seconds - last if seconds >= last else seconds
            found.setdefault(stage, dict.fromkeys(CLOCKS, 0.0))[clock] += more
            before[stage, clock] = seconds
    return {stage: {clock: round(seconds, 3) for clock, seconds in clocks.items()} for stage, clocks in found.items()}


def said_in(scores: Scores, spent: Mapping[str, Mapping[str, float]]) -> Scores:
    """The scores with what trainings took, in numbers, and the student's in a sentence."""
    own = [one for stage, one in spent.items() if not stage.startswith(NOT_THE_STUDENTS)]
    if not own:
        return replace(scores, spent=spent)
    clock, processor = (sum(one[name] for one in own) for name in CLOCKS)
    sentence = (f"cost: training the student took {clock:,.0f} s by the clock, {processor:,.0f} s of the processor"
                f"{_made_up_for(scores, clock)}")
    return replace(scores, spent=spent, notes=(*scores.notes, sentence))


def requests_until_made_up_for(scores: Scores, seconds: float) -> float | None:
    """How many examples, one at a time, the student has to answer until it has saved so many seconds of its teacher's; None
    where that is behind an address, speed was not measured, or the student is no faster."""
    if "teacher" not in scores.subjects:
        return None
    ours, theirs = scores.student.cost, scores.teacher.cost
    if ours.latency_median_ms is None or theirs.latency_median_ms is None or ours.unsteady or theirs.unsteady:
        return None
    saved = theirs.latency_median_ms - ours.latency_median_ms
    return None if saved <= 0 else 1000 * seconds / saved


def _made_up_for(scores: Scores, seconds: float) -> str:
    number = requests_until_made_up_for(scores, seconds)
    if number is None:
        return ""
    return f"; at the latencies measured here it has saved that after {number:,.0f} requests in place of its teacher"
