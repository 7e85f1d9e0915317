"""The page of a label curve: quality against labels a class, as lines with their intervals and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stilla.errors import counted
from stilla.report import numbers
from stilla.report.charts.marks import Style, mark_key, subject_style
from stilla.report.charts.spans import Span, spans
from stilla.report.figures import Figure, Key, chart_factor, quality_axis
from stilla.report.page import write_page
from stilla.report.table import Cell, Column, Row, ScoreTable
from stilla.scores import metric_title

if TYPE_CHECKING:
    from stilla.series.label_curve import Curve

_STYLES = (subject_style("baseline"), subject_style("student"), Style("extra", "diamond"))


def write_curve(curve: Curve, name: str, kinds: Sequence[str], target: Path) -> Path:
    """`kinds`: of students, as they are called."""
    return write_page(target, "curve.html.j2", {
        "title": f"Label curve of {Path(name).name}", "subtitle": "Quality against labels per class",
        "closing": "Written by Stilla.", "table": curve_table(curve, kinds), "marks": {}, "lead": in_short(curve, kinds),
        "figures": (_figure(curve, kinds),), "notes": remarks(curve, kinds),
        "contents": [("curve", "Curve"), ("notes", "Notes")]})


def curve_table(curve: Curve, kinds: Sequence[str]) -> ScoreTable:
    """A row for every number of labels, a column for every kind."""
    columns = [Column("labels", "labels"), *(Column(kind, kind) for kind in kinds), Column("steps", "steps", "Of each kind.")]
    rows = []
    for size in curve.sizes:
        here = [one for one in curve.points if one.per_class == size]
        steps = " / ".join(str(here[0].steps.get(kind, numbers.MISSING)) for kind in kinds)
        labels = max(one.labelled for one in here)
        cells = [Cell(f"{labels:,}", value=float(labels)), *(_cell(curve, size, kind) for kind in kinds)]
        rows.append(Row(str(size), f"{size} a class", (*cells, Cell(steps, value=0.0))))
    return ScoreTable(tuple(columns), tuple(rows))


def _cell(curve: Curve, size: int, kind: str) -> Cell:
    mean = curve.mean(size, kind)
    if mean is None:
        return Cell(numbers.MISSING)
    return Cell(numbers.quality(curve.metric, mean.value), numbers.interval(curve.metric, mean), mean.value)


def in_short(curve: Curve, kinds: Sequence[str]) -> str:
    """A sentence for the beginning: what the fewest labels are worth."""
    size = curve.sizes[0]
    said = [f"{kind} {numbers.quality(curve.metric, mean.value)}" for kind in kinds
            if (mean := curve.mean(size, kind)) is not None]
    return (f"With {size} label{'' if size == 1 else 's'} a class: {', '.join(said)} {metric_title(curve.metric)} on "
            f"{curve.split} data; the teacher has {numbers.quality(curve.metric, curve.teacher)}.")


def remarks(curve: Curve, kinds: Sequence[str]) -> tuple[str, ...]:
    draws = len({one.draw for one in curve.points})
    over = f"means over {draws} draws of labels, with Student's t intervals over them" if draws > 1 else \
        "one draw of labels; the intervals are over the examples alone, and another draw may lie outside"
    notes = [f"{over}; every draw of fewer labels is part of the draw of more",
             "the teacher is one and the same at every point, and knows more labels than its students: its answers carry "
             "them",
             "every kind is trained as long as the recipe says for what it learns from: with the rest there are more "
             "examples, and, counted in passes over them, more steps (the last column)"]
    if curve.left:
        notes.append(f"{counted(curve.left, 'training')} {'is' if curve.left == 1 else 'are'} being made by other processes; "
                     f"the same command again shows {'it' if curve.left == 1 else 'them'}")
    return tuple(notes)


def _figure(curve: Curve, kinds: Sequence[str]) -> Figure:
    factor = chart_factor(curve.metric)
    found = []
    for kind, style in zip(kinds, _STYLES, strict=True):
        means = [(size, mean) for size in curve.sizes if (mean := curve.mean(size, kind)) is not None]
        points = [(float(size), factor * one.value, factor * one.low, factor * one.high) for size, one in means]
        found += [Span(kind, style, points)] if points else []
    return Figure(spans(found, "labels per class", quality_axis(curve.metric), factor * curve.teacher, "teacher",
                        in_short(curve, kinds)),
                  keys=tuple(Key(mark_key(one.style), one.name) for one in found),
                  caption="Vertical lines: 95 % interval. Kinds at the same number stand side by side.")
