"""The page of a search: all trials side by side, what each value led to, why it ended, and what is still open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilla.report import numbers
from stilla.report.charts.marks import Style
from stilla.report.charts.scatter import Axis, Point, scatter
from stilla.report.figures import Figure, chart_factor, quality_axis, spoken
from stilla.report.page import write_page
from stilla.report.table import Cell, Column, Row, ScoreTable
from stilla.scores import metric_title

if TYPE_CHECKING:
    from stilla.series.trials import Reached, Trial

_MADE, _BEST = Style("baseline", "circle"), Style("student", "diamond")


def write_search(
    name: str, trials: Sequence[Trial], best: Trial | None, why: str, remarks: Sequence[str], target: Path
) -> Path:
    """Write the page to `target`. `why`: the search is over; nothing while it goes on."""
    table = search_table(trials, best)
    return write_page(target, "search.html.j2", {
        "title": f"Search of {name}", "subtitle": "Values that were tried, judged on validation data alone",
        "closing": "Written by Stilla. Intervals are 95 % bootstrap intervals over the validation examples.",
        "table": table, "marks": {}, "lead": in_short(trials, best), "why": why, "figures": _figures(trials, best),
        "notes": remarks, "contents": [("trials", "Trials"), *([("notes", "Notes")] if remarks else [])]})


def in_short(trials: Sequence[Trial], best: Trial | None) -> str:
    """A sentence for the beginning."""
    count = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    if best is None or best.reached is None:
        return f"{count}, none of which has come to its end yet."
    made = best.reached
    kept = "" if made.retention is None else f", {numbers.percent(made.retention)} of its teacher's"
    return (f"{count}; the best is {best.number}: {metric_title(made.metric)} "
            f"{numbers.quality(made.metric, made.quality.value)} on validation data{kept}.")


def search_table(trials: Sequence[Trial], best: Trial | None) -> ScoreTable:
    """The best first; those that are not finished last."""
    paths = list(trials[0].values) if trials else []
    metric = next((one.reached.metric for one in trials if one.reached is not None), "quality")
    columns = [*(Column(path, title, path) for path, title in zip(paths, titles(paths), strict=True)),
               Column("reached", metric_title(metric), "On validation data."),
               Column("retention", "retention", "Of the teacher's quality there."),
               Column("parameters", "parameters"), Column("time", "time", "Of the whole trial.")]
    if any(one.reached is not None and one.reached.left for one in trials):
        columns.append(Column("left", "seeds left out", "Of trials whose first students lay behind the best beyond noise."))
    rows = [Row("student" if best is not None and one.number == best.number else f"trial-{one.number}", str(one.number),
                (*(_value(one.values[path]) for path in paths), *_cells(one))[:len(columns)])
            for one in sorted(trials, key=_place)]
    return ScoreTable(tuple(columns), tuple(rows), ())


def titles(paths: Sequence[str]) -> list[str]:
    """Of fields as few of their last steps as tell them apart: `temperature`; `0.temperature` and `1.temperature`. Whole
    paths leave a terminal no room for what is measured."""
    found = []
    for path in paths:
        steps, count = path.split("."), 1
        while count < len(steps) and any(_last(other, count) == _last(path, count) for other in paths if other != path):
            count += 1
        found.append(".".join(steps[-count:]))
    return found


def _last(path: str, count: int) -> list[str]:
    return path.split(".")[-count:]


def _place(one: Trial) -> tuple[float, int]:
    return (-one.reached.score if one.reached is not None else float("inf"), one.number)


def _value(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(value if isinstance(value, str) else json.dumps(value), value=0.0)
    return Cell(f"{value:.4g}", value=float(value))


def _cells(one: Trial) -> tuple[Cell, ...]:
    made = one.reached
    if made is None:
        said = "is being made" if one.problem is None else "could not be made"
        return Cell(said), *([Cell(numbers.MISSING)] * 4)
    quality = Cell(numbers.quality(made.metric, made.quality.value), numbers.interval(made.metric, made.quality),
                   made.quality.value)
    kept = Cell(numbers.MISSING) if made.retention is None else Cell(numbers.percent(made.retention), value=made.retention)
    return (quality, kept, Cell(numbers.count(made.parameters), value=float(made.parameters)),
            Cell(numbers.duration(made.seconds), value=made.seconds), Cell(str(made.left), value=float(made.left)))


def _figures(trials: Sequence[Trial], best: Trial | None) -> tuple[Figure, ...]:
    """Quality by trial, and against every field."""
    made = [(one, one.reached) for one in trials if one.reached is not None]
    if best is None or len(made) < 2:
        return ()
    metric = made[0][1].metric
    found = [_figure(made, best, [float(one.number) for one, _ in made], "trial", "By trial", metric, None)]
    for path in best.values:
        places, names = _along([one.values[path] for one, _ in made])
        found.append(_figure(made, best, places, path, f"Against {path}", metric, names))
    return tuple(found)


def _along(values: Sequence[Any]) -> tuple[list[float], Mapping[float, str] | None]:
    """Where values stand on an axis: numbers where they are, all others side by side, with their names."""
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return [float(one) for one in values], None
    names = list(dict.fromkeys(one if isinstance(one, str) else json.dumps(one) for one in values))
    places = {name: float(place) for place, name in enumerate(names, 1)}
    found = [places[one if isinstance(one, str) else json.dumps(one)] for one in values]
    return found, {place: name for name, place in places.items()}


def _figure(
    made: Sequence[tuple[Trial, Reached]], best: Trial, places: Sequence[float], axis: str, title: str, metric: str,
    names: Mapping[float, str] | None,
) -> Figure:
    factor = chart_factor(metric)
    points = [Point(place, factor * one.quality.value, factor * one.quality.low, factor * one.quality.high,
                    _BEST if trial.number == best.number else _MADE, _tip(trial, one),
                    "best" if trial.number == best.number else "") for place, (trial, one) in zip(places, made, strict=True)]
    listed = "" if names is None else " " + ", ".join(f"{place:g}: {name}" for place, name in names.items()) + "."
    return Figure(scatter(points, Axis(axis), quality_axis(metric), spoken(points)), title,
                  caption=f"Vertical lines: 95 % interval.{listed}")


def _tip(trial: Trial, made: Reached) -> str:
    values = "\n".join(f"{path} {_value(value).text}" for path, value in trial.values.items())
    return f"trial {trial.number}: {numbers.quality(made.metric, made.quality.value)}\n{values}"
