"""What a run's trainings took, by its log: seconds, joules, operations; and after how many requests a student has made up for
its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stilla.evaluate.energy import MEASURED, STATED
from stilla.report import numbers
from stilla.runtime.files import read_line
from stilla.scores import Cost, Scores

CLOCKS = ("seconds", "processor_seconds")
COUNTERS = (*CLOCKS, "joules", "entered", "asked", "looked_at")
"""Of a log: what begins at zero where a training begins or is continued. `entered`, `asked`: numbers that student and teacher
have read; `looked_at`: that the student has read without learning, to choose the hardest forms."""
NOT_THE_STUDENTS = ("teacher", "baseline", "student-", "reptile-", "personal")
"""How trainings begin that are no cost of a student: there would be a teacher anyway, the baseline and further seeds are
there to compare, and parts for groups come on top."""


def of(log: Path) -> dict[str, dict[str, float]]:
    """By stage, seconds by the clock and of the processor; `joules` and `flops` where they are known of all of it.

    A stage that was continued counts from zero each time; what was lost with a stop is in no log, and missing here.
    """
    counted: dict[str, dict[str, float]] = {}
    before: dict[tuple[str, str], float] = {}
    operations: dict[str, Mapping[str, Any]] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        try:
            entry = read_line(line)
            stage, now = str(entry["stage"]), {name: float(entry[name]) for name in COUNTERS if name in entry}
            now["seconds"], now["processor_seconds"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # an evaluation, or half of a line
        sums = counted.setdefault(stage, dict.fromkeys(CLOCKS, 0.0))
        for name, value in now.items():
            last = before.get((stage, name), 0.0)
            sums[name] = sums.get(name, 0.0) + (value - last if value >= last else value)
            before[stage, name] = value
        if isinstance(entry.get("operations"), Mapping):
            operations[stage] = entry["operations"]
    return {stage: _taken(sums, operations.get(stage)) for stage, sums in counted.items()}


def _taken(sums: Mapping[str, float], operations: Mapping[str, Any] | None) -> dict[str, float]:
    found = {name: round(sums[name], 3) for name in (*CLOCKS, "joules") if name in sums}
    if operations is None or "entered" not in sums:
        return found
    asked = sums.get("asked", 0.0)
    looked = sums.get("looked_at", 0.0)
    if (asked and operations.get("teacher") is None) or (looked and operations.get("forward") is None):
        return found
    return {**found, "flops": sums["entered"] * operations["student"] + asked * (operations.get("teacher") or 0.0)
            + looked * (operations.get("forward") or 0.0)}


def said_in(scores: Scores, spent: Mapping[str, Mapping[str, float]], watts: float | None = None) -> Scores:
    """The scores with what trainings took, in numbers, and the student's in a sentence. `watts`: what a person says that the
    machine draws at work, for trainings whose energy nothing counted."""
    stated = {} if watts is None else {stage: {**one, "joules": watts * one["seconds"]} for stage, one in spent.items()
                                       if "joules" not in one}
    own = {stage: one for stage, one in {**spent, **stated}.items() if not stage.startswith(NOT_THE_STUDENTS)}
    scores = replace(scores, spent={**spent, **stated})
    if not own:
        return scores
    whole = {name: sum(one[name] for one in own.values()) for name in (*CLOCKS, "flops", "joules")
             if all(name in one for one in own.values())}
    repaid = requests_until_made_up_for(scores, whole)
    how = f" at the {watts:g} W that the recipe states (not measured)" if own.keys() & stated.keys() else ""
    beside = [*([f"{numbers.count(whole['flops'])} FLOPs"] if "flops" in whole else []),
              *([f"{numbers.joules(whole['joules'])}{how}"] if "joules" in whole else [])]
    clock, processor = (whole[name] for name in CLOCKS)
    sentence = (f"cost: making the student took {clock:,.0f} s by the clock, {processor:,.0f} s "
                f"of the processor{''.join(f', {one}' for one in beside)}{_made_up_for(repaid, scores)}")
    return replace(scores, repaid=repaid, notes=(*scores.notes, sentence))


def requests_until_made_up_for(scores: Scores, spent: Mapping[str, float]) -> dict[str, float]:
    """How many examples the student has to answer until it has saved what its training took of its teacher's `seconds` (one
    example at a time), `flops`, `joules` (in batches, as energy is measured); without those of which it saves none, or nobody
    knows it (a teacher behind an address)."""
    if "teacher" not in scores.subjects:
        return {}
    ours, theirs = scores.student.cost, scores.teacher.cost
    each = {"seconds": (_seconds(ours), _seconds(theirs)), "flops": (_flops(ours), _flops(theirs)),
            "joules": (_joules(ours), _joules(theirs))}
    if ours.energy_method != theirs.energy_method:
        del each["joules"]
    return {name: spent[name] / (before - now) for name, (now, before) in each.items()
            if name in spent and now is not None and before is not None and before > now}


def _seconds(cost: Cost) -> float | None:
    return None if cost.latency_median_ms is None or cost.unsteady else cost.latency_median_ms / 1000


def _flops(cost: Cost) -> float | None:
    """Of whole texts nobody counts them."""
    return cost.flops if cost.timed == "forward" else None


def _joules(cost: Cost) -> float | None:
    """Not those that are estimated from FLOPs: a training's are not."""
    known = cost.energy_method is not None and cost.energy_method.startswith((MEASURED, STATED))
    return None if cost.energy_joules is None or not known else cost.energy_joules / 1000


def _made_up_for(repaid: Mapping[str, float], scores: Scores) -> str:
    """`; in its teacher's place it saves as many seconds in 3,000 requests, one at a time`."""
    saved = {"seconds": "as many seconds", "flops": "as many FLOPs", "joules": "as much energy"}
    how = {"seconds": ", one at a time", "joules": f", in batches of {scores.student.cost.batch_size}"}
    said = [f"{saved[name]} in {number:,.0f} requests{how.get(name, '')}" for name, number in repaid.items()]
    return f"; in its teacher's place it saves {'; '.join(said)}" if said else ""
