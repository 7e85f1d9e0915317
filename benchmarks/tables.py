"""Markdown tables, for the terminal and RESULTS.md alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stilla.report.table import ScoreTable, score_table
from stilla.scores import Scores

COLUMNS = ("quality", "agreement", "parameters", "size", "latency", "throughput")
"""Of the score table; the others stand in every run's report."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column reads to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths), "|" + "|".join(_rule(number, width) for number, width in enumerate(widths)) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def qualities(runs: Mapping[str, Scores]) -> str:
    """Every model of several runs with one teacher, by the name of the run; the teacher once, as the first saw it."""
    tables = {name: score_table(scores) for name, scores in runs.items()}
    first = next(iter(tables.values()))
    kept = [column.key for column in first.columns if column.key in COLUMNS]
    titles = ["", *(column.title for column in first.columns if column.key in kept)]
    rows = [row for name, table in tables.items() for row in _rows(name, table, kept, with_teacher=table is first)]
    return markdown(titles, rows)


def differences(runs: Mapping[str, Scores]) -> str:
    """What distillation was worth in every run, as the facts below its score table."""
    facts = {name: {fact.title: fact for fact in score_table(scores).facts} for name, scores in runs.items()}
    titles = list(next(iter(facts.values())))
    rows = [[name, *(found[title].text for title in titles)] for name, found in facts.items()]
    return markdown(["", *titles], rows)


def spreads(runs: Mapping[str, Scores]) -> str:
    """The headline metric of every seed."""
    roles = ("baseline", "student")
    rows = [[f"{name}, {role}", *(f"{100 * value:.2f}" for value in scores.subjects[role].seeds)]
            for name, scores in runs.items() for role in roles if role in scores.subjects and scores.subjects[role].seeds]
    if not rows:
        return ""
    return markdown(["", *(f"seed {number}" for number in range(1, len(rows[0])))], rows)


def _rows(name: str, table: ScoreTable, kept: Sequence[str], *, with_teacher: bool) -> list[list[str]]:
    cells = {column.key: number for number, column in enumerate(table.columns)}
    return [["teacher" if row.subject == "teacher" else f"{name}, {row.title}",
             *(str(row.cells[cells[key]]) if key in cells else "" for key in kept)]
            for row in table.rows if with_teacher or row.subject != "teacher"]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"


def _rule(number: int, width: int) -> str:
    return "-" * (width + 2) if number == 0 else "-" * (width + 1) + ":"
