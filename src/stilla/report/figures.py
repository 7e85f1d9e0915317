"""A run's charts with their titles, legends and captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report import numbers
from stilla.report.charts.lines import Line, lines
from stilla.report.charts.marks import Style, line_key, mark_key, numbered_styles, subject_style
from stilla.report.charts.reliability import reliability
from stilla.report.charts.scatter import Axis, Point, scatter
from stilla.report.charts.strips import Spread, seed_strips
from stilla.report.curves import MOST_POINTS, TOTAL, StageLog, Training
from stilla.report.table import ordered_subjects, subject_title
from stilla.scores import Cost, Interval, Scores, is_fraction, metric_title

Number = Callable[[float], str]
OfCost = Callable[[Cost], float | None]

_NOT_QUALITY = frozenset({"loss", "runtime", "samples_per_second", "steps_per_second", "epoch"})
"""What a trainer logs beside the metrics when it evaluates."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend; `series` is what the script shows and hides with it."""

    mark: Markup
    name: str
    value: str = ""
    series: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with its title, legend and caption."""

    chart: Markup
    title: str = ""
    keys: tuple[Key, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class CostAxis:
    """A cost that quality is drawn against; `high` is what its horizontal bar reaches to."""

    title: str
    unit: str
    text: Number
    read: OfCost
    high: OfCost | None = None


COST_AXES = (
    CostAxis("Quality against size", "megabytes", lambda size: numbers.megabytes(1e6 * size),
             lambda cost: None if cost.bytes is None else cost.bytes / 1e6),
    CostAxis("Quality against latency", "milliseconds for one example", numbers.milliseconds,
             lambda cost: cost.latency_median_ms, lambda cost: cost.latency_p95_ms),
)


def trade_off(scores: Scores) -> tuple[Figure, ...]:
    """Quality against size and against latency, of everything that was measured."""
    found = []
    corner = "upper" if scores.higher_is_better else "lower"
    for cost in COST_AXES:
        points = list(quality_points(scores, scores.metric, scores.split, cost).values())
        bars = "Vertical lines: 95 % interval."
        if cost.high:
            bars += " Horizontal: up to the 95th percentile."
        bars += " Models of the same cost stand side by side."
        if len(points) > 1:
            found.append(Figure(scatter(points, Axis(cost.unit), quality_axis(scores.metric), spoken(points)),
                                cost.title, caption=f"{bars} Better lies towards the {corner} left."))
    return tuple(found)


def quality_points(scores: Scores, metric: str, split: str, axis: CostAxis) -> dict[str, Point]:
    """A labelled point per subject for which both quality and cost are known."""
    points = {}
    factor = chart_factor(metric)
    for name in ordered_subjects(scores):
        one = scores.subjects[name]
        measured, cost = one.quality.get(split, {}).get(metric), axis.read(one.cost)
        if measured is None or cost is None:
            continue
        tip = (f"{subject_title(name)}\n{numbers.quality(metric, measured.value)} "
               f"{numbers.interval(metric, measured)}\n{axis.text(cost)}")
        points[name] = Point(cost, factor * measured.value, factor * measured.low, factor * measured.high,
                             subject_style(name), tip, subject_title(name),
                             axis.high(one.cost) if axis.high else None)
    return points


def spoken(points: Sequence[Point]) -> str:
    """What a screen reader says of a scatter chart."""
    return "; ".join(point.tip.replace("\n", ", ") for point in points)


def quality_axis(metric: str) -> Axis:
    title = metric_title(metric)
    return Axis(f"{title} (%)", limits=(0.0, 100.0)) if is_fraction(metric) else Axis(title)


def chart_factor(metric: str) -> float:
    """Fractions are drawn as percentages."""
    return 100.0 if is_fraction(metric) else 1.0


def loss_figures(training: Training) -> tuple[Figure, ...]:
    """One chart per stage: its loss and its terms; further seeds stand faint behind."""
    stages = [[log for log in logs if log.losses] for logs in training.by_stage().values()]
    names = [name for logs in stages for log in logs for name in log.losses if name != TOTAL]
    colours = {TOTAL: "total", **{name: style.colour for name, style in numbered_styles(names).items()}}
    return tuple(_loss_figure(logs, colours) for logs in stages if logs)


def evaluation_figure(training: Training, metric: str) -> Figure | None:
    """Quality on validation data while training, of all stages together."""
    shown = [(log, name) for log in training.stages if (name := evaluated(log, metric))]
    if not shown:
        return None
    metric = shown[0][1]
    factor, axis = chart_factor(metric), quality_axis(metric)
    first = {log.stage: log for log, _ in reversed(shown)}
    curves = []
    for log, name in shown:
        style = subject_style(log.subject)
        points = [(step, factor * value) for step, value in log.evaluations[name]]
        faint = first[log.stage] is not log
        curves.append(Line(stage_title(log), style.colour, points, style.shape, faint))

    def text(value: float) -> str:
        return numbers.quality(metric, value / factor)

    chart = lines(curves, axis.title, f"{axis.title} on validation data over training steps", from_zero=False,
                  tip_text=text, limits=axis.limits)
    keys = tuple(
        Key(mark_key(Style(curve.colour, curve.shape)), curve.name, text(curve.points[-1][1]), curve.name)
        for curve in curves if not curve.faint)
    further = " Faint: further seeds." if any(curve.faint for curve in curves) else ""
    return Figure(chart, "Quality while training", keys, f"On validation data.{further}")


def evaluated(log: StageLog, metric: str) -> str:
    """The metric if the stage logged it, else the first that it did log."""
    names = [name for name in log.evaluations if name not in _NOT_QUALITY]
    return metric if metric in names else names[0] if names else ""


def stage_title(log: StageLog) -> str:
    """'student', or 'student, stage 2' where it is trained in several."""
    return subject_title(log.subject) + (f", stage {int(log.part) + 1}" if log.part else "")


def calibration_figures(scores: Scores) -> tuple[Figure, ...]:
    """A reliability diagram each for teacher, baseline and student, where they have probabilities."""
    found = []
    for name in ("teacher", "baseline", "student"):
        calibration = scores.subjects[name].calibration.get(scores.split) if name in scores.subjects else None
        if calibration and any(one.count for one in calibration.bins):
            error, style = f"ECE {numbers.percent(calibration.ece)}", subject_style(name)
            chart = reliability(calibration, style, f"Reliability of {subject_title(name)}: {error}")
            found.append(Figure(chart, keys=(Key(mark_key(style), subject_title(name), error),)))
    return tuple(found)


def seed_figure(scores: Scores) -> Figure | None:
    """The headline metric of every seed, where there are several."""
    factor, axis = chart_factor(scores.metric), quality_axis(scores.metric)

    def text(value: float) -> str:
        return numbers.quality(scores.metric, value / factor)

    spreads = []
    for name in ordered_subjects(scores):
        one = scores.subjects[name]
        mean = one.quality.get(scores.split, {}).get(scores.metric)
        if len(one.seeds) > 1 and mean is not None:
            scaled = Interval(factor * mean.value, factor * mean.low, factor * mean.high)
            spreads.append(Spread(subject_title(name), subject_style(name),
                                  [factor * seed for seed in one.seeds], scaled))
    if not spreads:
        return None
    words = "; ".join(f"{one.title}: {', '.join(map(text, one.seeds))}" for one in spreads)
    caption = (f"{words}. Each mark is one training run; the bar is their mean with its 95 % interval over "
               "examples and seeds together.")
    return Figure(seed_strips(spreads, axis.title, words, text, axis.limits), caption=caption)


def _loss_figure(logs: Sequence[StageLog], colours: Mapping[str, str]) -> Figure:
    first, *others = logs
    terms = {name: points for name, points in first.losses.items() if not _only_term(name, first)}
    curves = [Line(name if len(terms) > 1 else "loss", colours[name], points)
              for name, points in sorted(terms.items(), key=lambda item: item[0] != TOTAL)]
    behind = [Line("further seeds", "total", log.losses[TOTAL], faint=True)
              for log in others if TOTAL in log.losses]
    last = {curve.name: numbers.significant(curve.points[-1][1]) for curve in curves}
    keys = [Key(line_key(curve.colour), curve.name, last[curve.name], curve.name) for curve in curves]
    if behind:
        keys.append(Key(line_key("total faint"), "further seeds", series="further seeds"))
    title = stage_title(first)
    words = ", ".join(f"{name} ends at {value}" for name, value in last.items())
    thin = any(len(curve.points) > MOST_POINTS for curve in curves)
    return Figure(lines([*curves, *behind], "loss", f"Loss of {title} over training steps: {words}"),
                  title, tuple(keys), "Neighbouring steps are averaged." if thin else "")


def _only_term(name: str, log: StageLog) -> bool:
    """A single term that equals the loss is the loss itself; one curve says it."""
    if name == TOTAL or len(log.losses) != 2 or TOTAL not in log.losses:
        return False
    return math.isclose(log.losses[name][-1][1], log.losses[TOTAL][-1][1], rel_tol=1e-3)
