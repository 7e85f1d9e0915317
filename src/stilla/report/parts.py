"""Slices and shifted data as tables, and which of them is worst, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stilla.errors import all_of
from stilla.report import numbers
from stilla.report.numbers import MISSING
from stilla.report.table import (
    Cell,
    Column,
    Row,
    ScoreTable,
    in_markdown,
    ordered_subjects,
    subject_title,
    without_empty,
)
from stilla.scores import Interval, Part, Scores

FEW = "too few examples"
"""Said of a part that has not the examples that a comparison needs."""


def title(part: Part) -> str:
    return f"{part.column}: {part.name}" if part.column else part.name


def parts_table(scores: Scores, parts: Sequence[Part]) -> ScoreTable:
    """A row per part, those first in which the student falls furthest behind its teacher; every model's headline metric."""
    subjects = [name for name in ordered_subjects(scores) if any(name in part.quality for part in parts)]
    columns = [Column("examples", "examples"), *(Column(name, subject_title(name)) for name in subjects),
               Column("gap", "student − teacher", "paired by example"),
               Column("difference", "student − labels alone", "paired by example"),
               Column("beyond", f"against all {scores.split} data",
                      f"student − teacher here, minus that on all of them; corrected for {_looked_at(parts)} looked at")]
    return without_empty(columns, [_row(scores, subjects, part) for part in worst_first(scores, parts)])


def _row(scores: Scores, subjects: Sequence[str], part: Part) -> Row:
    metric = scores.metric
    return Row(title(part), title(part), (
        Cell(f"{part.examples:,}", "", part.examples), *(_quality(metric, part.quality.get(name)) for name in subjects),
        _difference(metric, part.gap, _why_not(part)), _difference(metric, part.difference),
        replace(_difference(metric, part.beyond), tone=_tone(scores, part.beyond))))


def markdown_parts(scores: Scores) -> str:
    """Both tables with their words, for the model card; nothing where nothing was measured apart."""
    found = [(heading, parts, what) for heading, parts, what in (
        ("Slices", scores.slices, "slices"), ("Shifted data", scores.shifted, "other data sets")) if parts]
    return "\n".join(f"## {heading}\n\n{summary(scores, parts, what)}\n\n{in_markdown(parts_table(scores, parts))}"
                     for heading, parts, what in found)


def worst_first(scores: Scores, parts: Sequence[Part]) -> list[Part]:
    """Those that are not compared last."""
    sign = 1 if scores.higher_is_better else -1
    return sorted(parts, key=lambda part: (part.beyond is None, 0.0 if part.beyond is None else sign * part.beyond.value))


def summary(scores: Scores, parts: Sequence[Part], what: str) -> str:
    """Where the student falls further behind its teacher than on the whole, if anywhere beyond chance. `what`: 'slices'."""
    compared = [(part, part.gap, part.beyond) for part in worst_first(scores, parts)
                if part.gap is not None and part.beyond is not None]
    worse = [part for part, _, beyond in compared if _tone(scores, beyond) == "worse"]
    corrected = f", corrected for {len(compared)} {what} looked at" if len(compared) > 1 else ""
    found = []
    if worse:
        others = [title(part) for part in worse[1:]]
        named = [*others[:3], *([f"{len(others) - 3} more"] if len(others) > 3 else [])]
        more = f" Also worse: {all_of(named)}." if others else ""
        found.append(f"The student falls furthest behind its teacher on {_said(scores, *compared[0])}{corrected}.{more}")
    elif compared:
        found.append(f"On none of {len(compared)} {what} does the student fall further behind its teacher than on all "
                     f"{scores.split} data, beyond chance; lowest is {_said(scores, *compared[0])}{corrected}.")
    if small := [part for part in parts if part.gap is None]:
        found.append(f"Not compared, for too few examples: {len(small)} of {len(parts)} {what}.")
    return " ".join(found)


def _said(scores: Scores, part: Part, gap: Interval, beyond: Interval) -> str:
    """'lang: de (student − teacher −4.1 points; against all test data −2.9 points [−5.0, −0.8])'."""
    further = f"{numbers.difference(scores.metric, beyond.value)} {numbers.difference_interval(scores.metric, beyond)}"
    return (f"{title(part)} (student − teacher {numbers.difference(scores.metric, gap.value)}; against all {scores.split} "
            f"data {further.rstrip()})")


def _tone(scores: Scores, beyond: Interval | None) -> str:
    """Where it is beyond chance."""
    if beyond is None or not beyond.excludes_zero():
        return ""
    return "better" if (beyond.value > 0) is scores.higher_is_better else "worse"


def _looked_at(parts: Sequence[Part]) -> int:
    return sum(part.beyond is not None for part in parts)


def _quality(metric: str, measured: Interval | None) -> Cell:
    if measured is None:
        return Cell(MISSING)
    return Cell(numbers.quality(metric, measured.value), numbers.interval(metric, measured), measured.value)


def _difference(metric: str, measured: Interval | None, why_not: str = "") -> Cell:
    if measured is None:
        return Cell(MISSING, why_not)
    return Cell(numbers.difference(metric, measured.value), numbers.difference_interval(metric, measured), measured.value)


def _why_not(part: Part) -> str:
    return FEW if {"teacher", "student"} <= set(part.quality) else "not defined here"
