"""What commands print on standard output: tables that fit 80 columns, without colour where nobody sees it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import stilla
from stilla.errors import RecipeError, all_of
from stilla.runtime.narrate import Console

if TYPE_CHECKING:
    from stilla.cache.care import Contents
    from stilla.check import Findings
    from stilla.check.planning import Plan
    from stilla.cli.listing import Entry, RunEntry
    from stilla.report.table import ScoreTable
    from stilla.run import Run
    from stilla.scores import Part, Scores
    from stilla.series import Curve, Searched


@lru_cache(maxsize=1)
def console() -> Console:
    """Standard output; silent in all but the main process."""
    return Console(highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def show(*things: RenderableType) -> None:
    for thing in things:
        as_it_is = isinstance(thing, str) or (isinstance(thing, Text) and thing.no_wrap is True)
        console().print(Text(thing) if isinstance(thing, str) else thing, soft_wrap=as_it_is)


def print_version() -> None:
    packages = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers")]
    show(f"stilla {stilla.__version__} (Python {'.'.join(map(str, sys.version_info[:3]))}, {', '.join(packages)})")


def print_run(run: Run) -> None:
    """How a run ends: the table, the verdict, where things lie."""
    print_scores(run.scores)
    exports = sorted((run.folder / "export").glob("*"))
    print_places(
        {
            "student": run.student,
            **{one.name: one for one in exports if one.is_dir()},
            "recipe": run.folder / "recipe.yaml",
            "report": run.report,
        }
    )


def print_scores(scores: Scores) -> None:
    from stilla.report.table import score_table, unsaid

    table = score_table(scores)
    shown = _turned(table, gap=2)
    unbounded = console().options.update(width=1000)
    if console().measure(shown, options=unbounded).maximum > console().width:
        shown = _turned(table, gap=1)  # five models fit 80 columns so
    show("", shown, "")
    show(_pairs([(fact.title, str(fact).partition(": ")[2]) for fact in table.facts]))
    for parts, what, heading in ((scores.slices, "slices", "slice"), (scores.shifted, "other data sets", "shifted data")):
        if parts:
            _print_parts(scores, parts, what, heading)
    show("", Text(scores.verdict, style="bold"))
    for note in unsaid(scores):
        show(Text(note, style="dim"))


MOST_PARTS = 12
"""Rows of a table of slices in a terminal; the page has all."""


def _print_parts(scores: Scores, parts: Sequence[Part], what: str, heading: str) -> None:
    """The worst first, and which of them is worse beyond chance."""
    from stilla.report.parts import parts_table, summary

    found = parts_table(scores, parts)
    column = {one.key: index for index, one in enumerate(found.columns)}
    kept = [name for name in ("examples", "teacher", "baseline", "student", "gap") if name in column]
    table = _plain_table(heading, *(found.columns[column[name]].title for name in kept), first_width=30)
    for row in found.rows[:MOST_PARTS]:
        cells = {name: row.cells[column[name]] for name in kept}
        table.add_row(row.title, *(str(cell) if name == "gap" else cell.text for name, cell in cells.items()))
    show("", table)
    if len(found.rows) > MOST_PARTS:
        show(Text(f"... and {len(found.rows) - MOST_PARTS} more on the page", style="dim"))
    if said := summary(scores, parts, what):
        show(Text(said))


def _turned(scores: ScoreTable, gap: int) -> Table:
    """A column per model, since there are more numbers than models."""
    shown = _plain_table("", *(Text(row.title, style="bold") for row in scores.rows), gap=gap)
    for index, column in enumerate(scores.columns):
        cells = [row.cells[index] for row in scores.rows]
        details = [Text(cell.detail, style="dim") for cell in cells]
        shown.add_row(column.title, *(Text(cell.text) for cell in cells))
        if any(detail.plain for detail in details):
            shown.add_row("", *details)
    return shown


def print_cache(path: str, found: Contents) -> None:
    """What a cache holds, in a few lines."""
    manifest, count = found.manifest, f"{_counted(found.segments, 'piece')} with {_counted(found.rows, 'row')}"
    form = manifest.logits.plain() if manifest.logits else {"kind": "hidden states alone"}
    kind = form.pop("kind")
    states = ", ".join(sorted(manifest.states.widths)) if manifest.states else ""
    pooling = manifest.states.pooling if manifest.states else None
    kept = "hidden states" if pooling is None else f"embeddings ({pooling})"
    lines = [
        ("cache", path),
        ("form", f"{kind} ({_named(form)})"),
        *([(kept, states)] if states else []),
        ("holds", f"{count} in {_counted(found.files, 'file')}"),
        ("size", f"{(found.bytes + found.head_bytes) / 1e6:,.1f} MB, {found.bytes_per_row:,.1f} bytes a row"
                 + (f" (and the head once: {found.head_bytes / 1e6:,.1f} MB)" if found.head_bytes else "")),
        *[(name, str(value)) for name, value in manifest.fingerprint.items() if not isinstance(value, Mapping)],
        *[(name, _named(value)) for name, value in manifest.fingerprint.items() if isinstance(value, Mapping)],
    ]
    show("", _pairs(lines))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _named(values: Mapping[str, Any]) -> str:
    """What is set, in one line: `k 50, temperatures 1.0 and 2.0`."""
    return ", ".join(f"{name} {all_of([str(one) for one in value]) if isinstance(value, list | tuple) else value}"
                     for name, value in values.items() if value is not None)


def print_places(places: Mapping[str, Path]) -> None:
    show("", _pairs([(name, _near(path)) for name, path in places.items()]))


def print_findings(findings: Findings) -> None:
    for number, problem in enumerate(findings.problems, 1):
        show(_hanging(f"{number}. ", problem, "red"))
    if not findings.problems:
        show(Text("No problems found.", style="green"))
    if findings.notes:
        show("", "Notes:")
        for note in findings.notes:
            show(_hanging("  · ", note))
    if findings.estimate is not None:
        show("", "Estimate, on this machine:", _pairs(findings.estimate.lines()))


def print_plan(plan: Plan) -> None:
    """Every size of student, then what the run costs."""
    from stilla.report.planned import costs, in_short, plan_table, what_decides

    found = plan_table(plan)
    table = _plain_table("student", *(column.title for column in found.columns), first_width=12)
    for row in found.rows:
        table.add_row(row.title, *(cell.text for cell in row.cells))
    show("", Text(in_short(plan), style="bold"), "", table, "")
    for note in (what_decides(plan), *plan.notes):
        show(_hanging("  · ", note))
    show("", "Estimate of the run, on this machine:", _pairs(costs(plan)))


def print_search(found: Searched) -> None:
    """The best trials, why there are no more, what is open, and how to go on."""
    from stilla.report.searched import in_short, search_table

    shown = search_table(found.trials, found.best)
    table = _plain_table("trial", *(column.title for column in shown.columns), first_width=8)
    for row in shown.rows[:MOST_PARTS]:
        table.add_row(row.title, *(cell.text for cell in row.cells))
    show("", table)
    if len(shown.rows) > MOST_PARTS:
        show(Text(f"... and {len(shown.rows) - MOST_PARTS} more on the page", style="dim"))
    show("", Text(in_short(found.trials, found.best), style="bold"), f"It ended, as {found.why}.")
    for remark in found.remarks:
        show(_hanging("  · ", remark))
    print_places({"best": found.best_recipe, "page": found.page})
    show("", f"`stilla run {_near(found.best_recipe)}` measures it on test data, exports and reports; it is trained already.")


def print_curve(found: Curve) -> None:
    """Every number of labels, and what the numbers are of."""
    from stilla.report.curve import curve_table, in_short, remarks
    from stilla.series.label_curve import KINDS

    shown = curve_table(found, KINDS)
    table = _plain_table("labels", *(column.title for column in shown.columns), first_width=12)
    for row in shown.rows:
        table.add_row(row.title, *(f"{cell.text} {cell.detail}".rstrip() for cell in row.cells))
    show("", Text(in_short(found, KINDS), style="bold"), "", table, "")
    for remark in remarks(found, KINDS):
        show(_hanging("  · ", remark))
    print_places({"page": found.page})


def print_comparison(folders: Sequence[Path]) -> None:
    """By what all runs measured, as on the page: their own headlines may be of different data."""
    from stilla.report.comparison import in_short

    measure, found, best = in_short(folders)
    column = {one.key: index for index, one in enumerate(found.columns)}
    kept = [name for name in ("teacher", "quality", "difference", "ratio", "retention", "size") if name in column]
    titles = {"teacher": "teacher", "quality": "student"}
    table = _plain_table("run", *(titles.get(name, found.columns[column[name]].title) for name in kept), first_width=24)
    for row in found.rows:
        cells = {name: row.cells[column[name]] for name in kept}
        table.add_row(row.title, *(str(cell) if name == "quality" else cell.text for name, cell in cells.items()))
    show("", measure, "", table, "", Text(best, style="bold"))


def print_listing(what: str, folder: Path, *, as_json: bool, task: str | None = None) -> None:
    """`task`: of whose recipes the fields are listed; by default of all."""
    from stilla.cli import listing

    if what == "recipe":
        from stilla.recipe.written import every_field, json_schema

        sys.stdout.write(f"{json.dumps(json_schema(task), indent=1)}\n" if as_json else every_field(task))
        return
    if task is not None:
        raise RecipeError(f"--task: of {what} there is one list for all tasks; it goes with `stilla list recipe`")
    if what == "runs":
        found: tuple[Any, ...] = listing.runs(folder)
    else:
        found = {"tasks": listing.tasks, "objectives": listing.objectives, "formats": listing.formats}[what]()
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(one) for one in found], indent=1, default=str) + "\n")
    elif what == "runs":
        print_runs(found) if found else show(f"There are no runs in {folder}. `stilla demo` makes one.")
    else:
        print_entries(found)


def print_entries(entries: Iterable[Entry]) -> None:
    from stilla.cli.listing import TaskEntry

    for entry in entries:
        show(Text(entry.name, style="bold"), _hanging("  ", entry.summary))
        if isinstance(entry, TaskEntry):
            show(_hanging("    by default: ", ", ".join(entry.by_default)), _hanging("    also: ", ", ".join(entry.others)),
                 _hanging("    export: ", entry.handed_over))
        if entry.options:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for option in entry.options:
                table.add_row(option.name, option.takes, Text(option.default, style="dim"))
            show(Padding(table, (0, 0, 0, 4)))
        show("")


def print_runs(entries: Iterable[RunEntry]) -> None:
    from stilla.report import numbers
    from stilla.scores import metric_title

    table = _plain_table("run", "metric", "teacher", "student", "retention", first_width=30)
    for entry in entries:
        if entry.quality is None:
            table.add_row(str(entry.folder), Text(entry.state, style="yellow"))
            continue
        teacher, student = (
            numbers.quality(entry.metric, entry.quality[name]) if name in entry.quality else numbers.MISSING
            for name in ("teacher", "student")
        )
        retention = numbers.percent(entry.retention) if entry.retention is not None else numbers.MISSING
        table.add_row(str(entry.folder), metric_title(entry.metric), teacher, student, retention)
    show(table)


def open_page(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        show(f"No browser could be started; open {page.resolve()}")


def _plain_table(first: str, *others: str | Text, first_width: int | None = None, gap: int = 2) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold", max_width=first_width)
    for title in others:
        table.add_column(title, justify="right", overflow="fold")
    return table


def _pairs(lines: Iterable[tuple[str, str]]) -> Text:
    """Names in a column, what they mean beside them, wrapped under themselves; a long path stays whole, to be copied."""
    lines = list(lines)
    column = max((len(name) for name, _ in lines), default=0) + 2
    shown = [_hanging(" " * column, text) for _, text in lines]
    for (name, _), text in zip(lines, shown, strict=True):
        text.plain = name.ljust(column) + text.plain[column:]
        text.stylize("dim", 0, len(name))
    return Text("\n", no_wrap=True).join(shown)


def _hanging(first: str, text: str, style: str = "") -> Text:
    """A list's entry, wrapped under itself; words longer than a line, such as paths, stay whole."""
    room = max(20, console().width - len(first))
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return Text(first + ("\n" + " " * len(first)).join(lines), style=style, no_wrap=True)


def _near(path: Path) -> str:
    """The path from here, if it lies below; so it can be copied into the next command."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
