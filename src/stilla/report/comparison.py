"""One page for several runs: their students side by side, their curves, and in what their recipes differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from stilla.errors import DataError, StillaError, all_at_once
from stilla.report import numbers
from stilla.report.charts.lines import Line, lines
from stilla.report.charts.marks import Style, line_key, mark_key, numbered_styles, subject_style
from stilla.report.charts.scatter import Axis, Point, scatter
from stilla.report.common import (
    caveats,
    common_measure,
    distinct_names,
    ranking,
    recipe_differences,
    students_table,
)
from stilla.report.curves import TOTAL, Points, StageLog
from stilla.report.figures import (
    COST_AXES,
    CostAxis,
    Figure,
    Key,
    chart_factor,
    evaluated,
    quality_axis,
    quality_points,
    spoken,
    stage_title,
)
from stilla.report.folder import RunFolder, read_run
from stilla.report.page import measured_on, subject_marks, write_page
from stilla.report.table import ScoreTable, ordered_subjects, score_table, subject_title
from stilla.scores import metric_title, task_title


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Write the page that compares the runs in `folders` to `target`.

    Raises:
        DataError: fewer than two runs, a folder without scores, different tasks, or no common measure.
    """
    runs = _read([Path(folder) for folder in folders])
    metric, split = common_measure(runs)
    return write_page(Path(target), "comparison.html.j2", _values(runs, metric, split))


def in_short(folders: Sequence[Path]) -> tuple[str, ScoreTable, str]:
    """The page's first table for a terminal: what is compared, a row per run, and who is best.

    Raises:
        DataError: as `write_comparison`.
    """
    runs = _read([Path(folder) for folder in folders])
    metric, split = common_measure(runs)
    table = students_table(runs, metric, split)
    return f"{metric_title(metric)} on {split} data", table, ranking(runs, metric, split)


def _read(folders: Sequence[Path]) -> list[RunFolder]:
    """All runs, each with a name of its own; every folder that is no run is named at once."""
    if len(folders) < 2:
        raise DataError(f"a comparison needs at least two runs, got {len(folders)}. "
                        "For one run: stilla report RUN")
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except StillaError as error:
            problems.append(str(error))
    problems += [f"{run.path}: its scores hold no student, so there is nothing to compare." for run in runs
                 if "student" not in run.scores.subjects]
    if problems:
        raise all_at_once(problems, DataError)
    return [replace(run, name=name) for run, name in zip(runs, distinct_names(folders), strict=True)]


def _values(runs: Sequence[RunFolder], metric: str, split: str) -> dict[str, object]:
    """Everything that the page shows, by the names its template uses."""
    styles = numbered_styles(run.name for run in runs)
    differences, unread = recipe_differences(runs)
    curves, figures = _curves(runs, styles, metric), _trade_off(runs, styles, metric, split)
    problems = [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    notes = (*caveats(runs, metric, split), *problems, *unread)
    marks: dict[str, Markup] = {}
    for run in runs:
        marks |= subject_marks(run.scores)
    return {
        "title": " · ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        "subtitle": f"{task_title(runs[0].scores.task)} · "
                    f"{metric_title(metric)} on {split} data",
        "closing": "Written by Stilla. Each interval is its own run’s 95 % bootstrap interval.",
        "verdict": ranking(runs, metric, split),
        "students": students_table(runs, metric, split),
        "run_marks": {name: line_key(style.colour) for name, style in styles.items()},
        "runs": [(run.name, score_table(run.scores, metric, split), run.scores.verdict) for run in runs],
        "marks": marks,
        "measured_on": f"{measured_on(runs[0].scores, split)[:-1]} of the same run.",
        "notes": notes,
        "trade_off": figures,
        "curves": curves,
        "names": [run.name for run in runs],
        "differences": differences,
        "no_differences": "There are not two recipes to compare." if len(unread) >= len(runs) - 1
        else "The recipes are the same.",
        "contents": [(target, name) for target, name, there in (
            ("runs", "Runs", True), ("notes", "Notes", notes), ("trade-off", "Cost", figures),
            ("training", "Training", curves), ("recipes", "Recipes", True)) if there],
    }


def _trade_off(
    runs: Sequence[RunFolder], styles: Mapping[str, Style], metric: str, split: str,
) -> tuple[Figure, ...]:
    """Everything measured of all runs: colours tell the run, marks what it is."""
    found = []
    shown = dict.fromkeys(name for run in runs for name in ordered_subjects(run.scores))
    keys = [Key(line_key(styles[run.name].colour), run.name) for run in runs]
    keys += [Key(mark_key(Style("total", subject_style(name).shape)), subject_title(name)) for name in shown]
    for cost in COST_AXES:
        points = _points(runs, styles, metric, split, cost)
        if len(points) > 1:
            found.append(Figure(scatter(points, Axis(cost.unit), quality_axis(metric), spoken(points)),
                                cost.title, tuple(keys), "Vertical lines: 95 % interval."))
    return tuple(found)


def _points(
    runs: Sequence[RunFolder], styles: Mapping[str, Style], metric: str, split: str, cost: CostAxis,
) -> list[Point]:
    """Runs that share a teacher show it once, in the colour of the first."""
    found: dict[tuple[str, float, float], Point] = {}
    for run in runs:
        for name, point in quality_points(run.scores, metric, split, cost).items():
            where = ("" if name == "teacher" else f"{run.name} {name}", point.x, point.y)
            style = Style(styles[run.name].colour, point.style.shape)
            label = run.name if name == "student" else ""
            found.setdefault(where, replace(point, style=style, tip=f"{run.name}, {point.tip}", label=label,
                                            x_high=None))
    return list(found.values())


def _curves(runs: Sequence[RunFolder], styles: Mapping[str, Style], metric: str) -> tuple[Figure, ...]:
    """The students' quality and loss while training, all runs in one chart each."""
    factor, axis = chart_factor(metric), quality_axis(metric)
    qualities: list[Line] = []
    losses: list[Line] = []
    for run in runs:
        for log in _student_logs(run):
            name = f"{run.name}{stage_title(log).removeprefix('student')}"
            if TOTAL in log.losses:
                losses.append(_line(name, styles[run.name], log.losses[TOTAL], 1.0))
            if evaluated(log, metric) == metric:
                qualities.append(_line(name, styles[run.name], log.evaluations[metric], factor))

    def text(value: float) -> str:
        return numbers.quality(metric, value / factor)

    found = []
    if qualities:
        label = f"{axis.title} of each student on validation data"
        chart = lines(qualities, axis.title, label, from_zero=False, tip_text=text, limits=axis.limits)
        found.append(Figure(chart, "Quality while training", _keys(qualities, text),
                            "Students on validation data."))
    if losses:
        found.append(Figure(lines(losses, "loss", "Loss of each student over training steps"), "Loss",
                            _keys(losses, numbers.significant),
                            "Losses of different objectives have different units; compare their shape only."))
    return tuple(found)


def _student_logs(run: RunFolder) -> list[StageLog]:
    """The student's stages, of each its first seed."""
    return [logs[0] for (subject, _), logs in run.training.by_stage().items() if subject == "student"]


def _line(name: str, style: Style, points: Points, factor: float) -> Line:
    return Line(name, style.colour, [(step, factor * value) for step, value in points], style.shape)


def _keys(curves: Sequence[Line], text: Callable[[float], str]) -> tuple[Key, ...]:
    return tuple(Key(line_key(curve.colour), curve.name, text(curve.points[-1][1]), curve.name)
                 for curve in curves)
