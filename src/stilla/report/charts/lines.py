"""Curves over training steps; the page's script reads values from them under the pointer."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from stilla.report.charts.svg import Scale, Text, axes, join, mark, padded, padded_log, polyline, svg, tag
from stilla.report.curves import Points, thinned
from stilla.report.numbers import significant

WIDTH, HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 34, 48
# A loss that falls by more than this would be a vertical line and a flat one on a linear axis.
_LOG_FROM = 20.0
# Few points are measurements of their own (one per epoch) and get a mark each.
_MARKED_UP_TO = 24


@dataclass(frozen=True)
class Line:
    """A curve. `colour` is a class of page.css; a `faint` one stands behind the others (further seeds)."""

    name: str
    colour: str
    points: Points
    shape: str = "circle"
    faint: bool = False


def lines(
    curves: Sequence[Line], y_title: str, label: str, *, from_zero: bool = True, tip_text: Text = significant,
    limits: tuple[float, float] = (float("-inf"), float("inf")),
) -> Markup:
    """The curves over their steps. `from_zero` for losses; qualities lie inside `limits`."""
    curves = [replace(curve, points=thinned(curve.points)) for curve in curves]
    steps = [step for curve in curves for step, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points]
    x = Scale(min(steps), max(max(steps), min(steps) + 1), _LEFT, WIDTH - _RIGHT)
    y = _y_scale(curves, values, from_zero, limits)
    title = f"{y_title} (logarithmic)" if y.logarithmic else y_title
    return svg(
        WIDTH, HEIGHT, label,
        axes(x, y, "step", title),
        join(_curve(curve, x, y) for curve in sorted(curves, key=lambda curve: not curve.faint)),
        tag("line", class_="cursor", x1=0, x2=0, y1=_TOP, y2=HEIGHT - _BOTTOM, visibility="hidden"),
        class_="chart lines", tabindex="0", data_lines=_readable(curves, x, y, tip_text),
    )


def _curve(curve: Line, x: Scale, y: Scale) -> Markup:
    at = [(x(step), y(value)) for step, value in curve.points]
    kind = f"line {curve.colour}" + (" faint" if curve.faint else "")
    marks = join(mark(curve.shape, *place, 3.5, class_=f"mark {curve.colour}") for place in at) \
        if len(at) <= _MARKED_UP_TO and not curve.faint else Markup("")
    return tag("g", tag("path", d=polyline(at), class_=kind), marks, data_series=curve.name)


def _y_scale(
    curves: Sequence[Line], values: Sequence[float], from_zero: bool, limits: tuple[float, float],
) -> Scale:
    bottom, top = HEIGHT - _BOTTOM, _TOP
    if not from_zero:
        # values that are all but equal would else stand between ticks of many decimals
        return padded(values, bottom, top, floor=max(1e-3, 0.01 * abs(max(values))), limits=limits)
    longest = max(curves, key=lambda curve: len(curve.points))
    typical = statistics.median(value for _, value in longest.points)
    if min(values) > 0 and max(values) > _LOG_FROM * typical:
        return padded_log(values, bottom, top, share=0.05)
    if min(values) < 0:
        return padded(values, bottom, top)
    return Scale(0.0, max(1.06 * max(values), 1e-9), bottom, top)


def _readable(curves: Sequence[Line], x: Scale, y: Scale, text: Text) -> str:
    """What the script shows under the pointer: each curve's points as [step, text, x, y], in pixels."""
    def point(step: float, value: float) -> list[object]:
        return [f"{step:,.0f}", text(value), round(x(step), 1), round(y(value), 1)]

    plain = [{"name": curve.name, "points": [point(*one) for one in curve.points]}
             for curve in curves if not curve.faint]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
