"""Parts of the student for groups of examples against the shared student: wins, ties and losses, as a table and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stilla.errors import agreeing, counted, singular
from stilla.report import numbers
from stilla.report.parts import FEW
from stilla.report.table import Cell, Column, Row, ScoreTable, in_markdown, without_empty
from stilla.scores import Group, Grouped, Interval, Scores

_TONES = {"win": "better", "loss": "worse"}


def grouped_table(scores: Scores, found: Grouped) -> ScoreTable:
    """A row per group, those first in which the part falls furthest behind the shared student."""
    columns = [Column("learnt", "learnt from"), Column("examples", "examples"), Column("student", "student"),
               Column("personal", "with its part"),
               Column("difference", "part − shared", f"paired by example; corrected for {len(compared(found))} looked at"),
               Column("outcome", "")]
    return without_empty(columns, [_row(scores, one) for one in worst_first(scores, found.groups)])


def worst_first(scores: Scores, groups: Sequence[Group]) -> list[Group]:
    """Those that are not compared last."""
    sign = 1 if scores.higher_is_better else -1
    return sorted(groups, key=lambda one: (one.difference is None,
                                           0.0 if one.difference is None else sign * one.difference.value))


def compared(found: Grouped) -> list[Group]:
    return [one for one in found.groups if one.difference is not None]


def summary(scores: Scores, found: Grouped) -> str:
    """How many groups, and how many examples, win, tie and lose."""
    told = compared(found)
    count = {outcome: sum(one.outcome == outcome for one in told) for outcome in ("win", "tie", "loss")}
    whole = found.difference
    over = f"{numbers.difference(scores.metric, whole.value)} {numbers.difference_interval(scores.metric, whole)}".rstrip()
    said = [f"With its parts the student is {over} against the shared one on all {scores.split} data."]
    if told:
        said.append(f"Of {counted(len(told), 'value')} of {found.by} that {agreeing(len(told), 'is')} compared, "
                    f"{count['win']} {agreeing(count['win'], 'wins')} beyond chance, "
                    f"{count['tie']} {agreeing(count['tie'], 'ties')} and {count['loss']} "
                    f"{agreeing(count['loss'], 'loses')}.")
    if found.won is not None and found.tied is not None and found.lost is not None:
        said.append(f"One by one, {counted(found.won, singular(found.units), 'wins')}, {found.tied:,} "
                    f"{agreeing(found.tied, 'ties')} and {found.lost:,} {agreeing(found.lost, 'loses')}; {found.cold:,} "
                    f"{agreeing(found.cold, 'is')} of others and {agreeing(found.cold, 'gets')} the shared student.")
    if small := len(found.groups) - len(told):
        said.append(f"Not compared, for too few examples: {small} of {len(found.groups)}.")
    return " ".join(said)


def markdown_grouped(scores: Scores) -> str:
    """The table with its words, for the model card; nothing where there are no parts."""
    found = scores.grouped
    if found is None:
        return ""
    return f"## Parts by {found.by}\n\n{summary(scores, found)}\n\n{in_markdown(grouped_table(scores, found))}"


def _row(scores: Scores, one: Group) -> Row:
    return Row(one.name, one.name, (
        Cell(f"{one.learnt:,}", "", one.learnt), Cell(f"{one.examples:,}", "", one.examples),
        _quality(scores.metric, one.student), _quality(scores.metric, one.personal), _difference(scores.metric, one),
        Cell(one.outcome or FEW, "", None if one.difference is None else one.difference.value, _TONES.get(one.outcome, ""))))


def _quality(metric: str, measured: Interval) -> Cell:
    return Cell(numbers.quality(metric, measured.value), numbers.interval(metric, measured), measured.value)


def _difference(metric: str, one: Group) -> Cell:
    if one.difference is None:
        return Cell(numbers.MISSING, FEW)
    cell = Cell(numbers.difference(metric, one.difference.value), numbers.difference_interval(metric, one.difference),
                one.difference.value)
    return replace(cell, tone=_TONES.get(one.outcome, ""))
