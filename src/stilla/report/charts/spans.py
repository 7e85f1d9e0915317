"""Quality over a number that grows by factors: a line per kind, with the interval of every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report.charts.marks import Style
from stilla.report.charts.scatter import Axis
from stilla.report.charts.svg import Scale, axes, join, mark, padded, padded_log, polyline, svg, tag

WIDTH, HEIGHT = 620, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 34, 48
_APART = 5.0
"""Pixels between the intervals of two kinds at one place, which would else hide each other."""


@dataclass(frozen=True)
class Span:
    """Points of a kind: where, the value, and its interval."""

    name: str
    style: Style
    points: Sequence[tuple[float, float, float, float]]


def spans(found: Sequence[Span], x_title: str, y_axis: Axis, level: float | None, level_name: str, label: str) -> Markup:
    """`level`: a line across, of what is the same everywhere."""
    places = sorted({point[0] for one in found for point in one.points})
    values = [value for one in found for point in one.points for value in point[1:]] + ([] if level is None else [level])
    x = padded_log(places, _LEFT, WIDTH - _RIGHT)
    y = padded(values, HEIGHT - _BOTTOM, _TOP, limits=y_axis.limits)
    across = [] if level is None else [
        tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(level), y2=y(level), class_="line teacher"),
        tag("text", level_name, x=WIDTH - _RIGHT, y=y(level) - 6, class_="label end teacher")]
    return svg(WIDTH, HEIGHT, label, axes(x, y, f"{x_title} (logarithmic)", y_axis.title, x_ticks=places,
                                          x_text=lambda value: f"{value:g}"),
               *across, join(_span(one, x, y, _APART * (place - (len(found) - 1) / 2)) for place, one in enumerate(found)),
               role="group", class_="chart scatter")


def _span(one: Span, x: Scale, y: Scale, shift: float) -> Markup:
    at = [(x(place) + shift, y(value)) for place, value, _, _ in one.points]
    # an interval of few draws goes beyond what the metric can be, where the axis ends
    bars = [tag("line", x1=left, x2=left, y1=y(min(max(low, y.low), y.high)), y2=y(min(max(high, y.low), y.high)))
            for (left, _), (_, _, low, high) in zip(at, one.points, strict=True) if low < high]
    marks = [mark(one.style.shape, left, top, 5, class_=f"mark {one.style.colour}", data_tip=tip, tabindex="0", role="img",
                  aria_label=tip)
             for (left, top), tip in zip(at, (f"{one.name}: {place:g}: {value:.4g} [{low:.4g}, {high:.4g}]"
                                              for place, value, low, high in one.points), strict=True)]
    return tag("g", tag("path", d=polyline(at), class_=f"line {one.style.colour}"),
               tag("g", *bars, class_=f"bar {one.style.colour}"), *marks)
