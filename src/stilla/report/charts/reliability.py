"""The reliability diagram of one model: how often it is right when it is that sure (Guo et al. 2017)."""

from __future__ import annotations

import math

from markupsafe import Markup

from stilla.errors import counted
from stilla.report.charts.marks import Style
from stilla.report.charts.svg import Scale, axes, join, mark, polyline, svg, tag
from stilla.report.numbers import percent
from stilla.scores import Bin, Calibration

WIDTH, HEIGHT = 300, 352
_LEFT, _RIGHT, _TOP = 42, 12, 30
_SIDE = WIDTH - _LEFT - _RIGHT
_STRIP = 26
"""Height of the strip under the square that shows how many examples there are of each confidence."""


def reliability(calibration: Calibration, style: Style, label: str) -> Markup:
    """Accuracy against confidence by bin: the gap to the diagonal is shaded, marks grow with the examples."""
    x = Scale(0.0, 1.0, _LEFT, _LEFT + _SIDE)
    y = Scale(0.0, 1.0, _TOP + _SIDE, _TOP)
    bins = [one for one in calibration.bins if one.count]
    total = sum(one.count for one in bins)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    curve = polyline((x(one.confidence), y(one.accuracy)) for one in bins)
    return svg(
        WIDTH, HEIGHT, label,
        axes(x, y, "confidence", "accuracy", x_ticks=ticks, y_ticks=ticks, x_text=_hundred, y_text=_hundred),
        _gap(bins, x, y, style),
        tag("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"),
        tag("path", d=curve, class_=f"line {style.colour}"),
        join(_bin(one, total, x, y, style) for one in bins),
        join(_strip(one, max(bar.count for bar in bins), x, style) for one in bins),
        class_="chart reliability",
    )


def _gap(bins: list[Bin], x: Scale, y: Scale, style: Style) -> Markup:
    if len(bins) < 2:
        return Markup("")
    there = [(x(one.confidence), y(one.accuracy)) for one in bins]
    back = [(x(one.confidence), y(one.confidence)) for one in reversed(bins)]
    return tag("path", d=polyline(there + back) + "Z", class_=f"gap {style.colour}")


def _bin(one: Bin, total: int, x: Scale, y: Scale, style: Style) -> Markup:
    tip = (f"{percent(one.confidence)} sure, {percent(one.accuracy)} right\n"
           f"{one.count:,} of {total:,} examples")
    return mark(style.shape, x(one.confidence), y(one.accuracy), 2.5 + 5 * math.sqrt(one.count / total),
                class_=f"mark {style.colour}", data_tip=tip)


def _strip(one: Bin, most: int, x: Scale, style: Style) -> Markup:
    height = _STRIP * one.count / most
    tip = f"{counted(one.count, 'example')}, {percent(one.confidence)} sure"
    return tag("rect", x=x(one.confidence) - 5, y=HEIGHT - height, width=10, height=height,
               class_=f"count {style.colour}", data_tip=tip)


def _hundred(value: float) -> str:
    return f"{100 * value:.0f}"
