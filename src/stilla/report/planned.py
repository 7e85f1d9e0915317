"""The page of a plan: students of every size side by side, and what the run ahead costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stilla.report import numbers
from stilla.report.charts.marks import Style
from stilla.report.charts.scatter import Axis, Point, scatter
from stilla.report.figures import Figure, spoken
from stilla.report.page import write_page
from stilla.report.table import Cell, Column, Row, ScoreTable, without_empty

if TYPE_CHECKING:
    from stilla.check.planning import Plan, Planned

_COLUMNS = (
    Column("layers", "layers"), Column("neurons", "neurons", "Of its feed-forward layers, to the teacher's."),
    Column("hidden", "hidden state", "And heads, to the teacher's."),
    Column("tokens", "tokens", "Of its vocabulary."),
    Column("parameters", "parameters"), Column("size", "size", "Of its weights in float32, to the teacher's."),
    Column("latency", "latency", "Median of a forward on this machine."),
    Column("kept", "texts’ tokens", "How many of the training texts’ tokens it has; the others fall into smaller ones."),
    Column("reached", "reached", "In a short training."))


def write_plan(plan: Plan, recipe: str, target: Path) -> Path:
    """Write the page to `target`. `recipe`: its name."""
    table = plan_table(plan)
    return write_page(target, "plan.html.j2", {
        "title": f"Plan of {recipe}", "subtitle": "Students below the limits, and what the run costs",
        "closing": "Written by Stilla before any training.", "table": table, "marks": {},
        "lead": in_short(plan), "measured_on": f"Latency: {plan.measured_on}. {what_decides(plan)}",
        "figures": _figures(plan), "costs": costs(plan), "notes": plan.notes,
        "contents": [("students", "Students"), ("costs", "Costs"), *([("notes", "Notes")] if plan.notes else [])]})


def plan_table(plan: Plan) -> ScoreTable:
    """The teacher, then the students from deep to shallow."""
    whole = plan.teacher
    narrower = any(one.candidate.ffn < 1 for one in plan.students)
    rows = [Row("teacher", "teacher", _cells(whole, whole, narrower, teacher=True))]
    for number, one in enumerate(plan.students, 1):
        title = f"{number}, chosen" if one.chosen else str(number)
        rows.append(Row(f"student-{number}", title, _cells(one, whole, narrower)))
    return without_empty(_COLUMNS, rows)


def _cells(one: Planned, whole: Planned, narrower: bool, *, teacher: bool = False) -> tuple[Cell, ...]:
    """`narrower`: whether any student has fewer neurons."""
    candidate, missing = one.candidate, Cell(numbers.MISSING)
    layers = candidate.layers
    deep = f"{layers}" if isinstance(layers, int) else ", ".join(f"{name} {value}" for name, value in (layers or {}).items())
    return (
        missing if teacher or layers is None else Cell(deep, value=float(candidate.depth)),
        missing if not narrower else Cell(numbers.percent(candidate.ffn), value=candidate.ffn),
        missing if candidate.hidden == 1 else Cell(numbers.percent(candidate.hidden), value=candidate.hidden),
        missing if candidate.tokens is None else Cell(f"{candidate.tokens:,}", value=float(candidate.tokens)),
        Cell(numbers.count(candidate.parameters), value=float(candidate.parameters)),
        Cell(numbers.megabytes(1e6 * one.megabytes), "" if teacher else numbers.compared(
            one.megabytes, whole.megabytes, "smaller", "larger", "as large"), one.megabytes),
        Cell(numbers.milliseconds(one.milliseconds), "" if teacher else numbers.compared(
            one.milliseconds, whole.milliseconds, "faster", "slower", "as fast"), one.milliseconds),
        missing if teacher else Cell(numbers.percent(candidate.kept), value=candidate.kept),
        missing if one.reached is None else Cell(f"{one.reached:.3g}", value=one.reached),
    )


def in_short(plan: Plan) -> str:
    """A sentence for the beginning."""
    small = min((one.candidate.parameters for one in plan.students), default=0)
    large = max((one.candidate.parameters for one in plan.students), default=0)
    sizes = dict.fromkeys((numbers.count(small), numbers.count(large)))
    said = f"{len(plan.students)} student{'s' if len(plan.students) != 1 else ''} of {' to '.join(sizes)} parameters"
    chosen = next((one for one in plan.students if one.chosen), None)
    if chosen is None:
        return f"{said}."
    return f"{said}; a run has chosen the one with {numbers.count(chosen.candidate.parameters)}."


def what_decides(plan: Plan) -> str:
    """By what the best of them is found."""
    if plan.by is not None:
        return f"Reached: {plan.by} on validation data after a short training of each of the best candidates."
    return ("Which of them is best shows in training alone: a run with a limit (`student: {size: 0.33}`) tries the best "
            "candidates.")


def costs(plan: Plan) -> list[tuple[str, str]]:
    """What, how much."""
    lines = plan.estimate.lines()
    if plan.uncached is not None:
        (_, time), *_ = plan.uncached.lines()
        lines.append(("without a cache", time))
    return lines


def _figures(plan: Plan) -> tuple[Figure, ...]:
    points = [Point(one.megabytes, one.milliseconds, one.milliseconds, one.milliseconds, Style(colour, shape), tip, label)
              for one, colour, shape, tip, label in _marks(plan)]
    if len(points) < 2:
        return ()
    return (Figure(scatter(points, Axis("megabytes"), Axis("milliseconds"), spoken(points)), "Latency against size",
                   caption="Better lies towards the lower left."),)


def _marks(plan: Plan) -> list[tuple[Planned, str, str, str, str]]:
    found = [(plan.teacher, "teacher", "square", "teacher", "teacher")]
    for number, one in enumerate(plan.students, 1):
        cost = f"{numbers.megabytes(1e6 * one.megabytes)}\n{numbers.milliseconds(one.milliseconds)}"
        found.append((one, "student", "circle", f"{number}: {one.candidate.spec}\n{cost}", str(number)))
    return found
