"""Quality against size or latency: one mark per measured model, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report.charts.marks import Style
from stilla.report.charts.svg import Scale, Text, axes, join, mark, padded, padded_log, svg, tag

WIDTH, HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 34, 48
# Beyond this ratio of largest to smallest, small models would huddle at the left edge of a linear axis.
_LOG_FROM = 4.0
_LETTER, _LINE = 7.4, 15

_OPTIONS = ((12, 4, "start"), (-12, 4, "end"), (0, -13, "middle"), (0, 23, "middle"),
            (8, -11, "start"), (-8, -11, "end"), (8, 21, "start"), (-8, 21, "end"))
"""Where a label may stand: right and down from its mark, and which end of it stands there; the best first."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Point:
    """A model: `low` and `high` its quality's interval, `x_high` for example its 95th percentile of latency.

    Without a `label` it is told by its mark alone. `tip` is shown when it is pointed at.
    """

    x: float
    y: float
    low: float
    high: float
    style: Style
    tip: str
    label: str = ""
    x_high: float | None = None


@dataclass(frozen=True)
class Axis:
    """An axis' title and how its numbers are written; `limits` is what its values cannot leave."""

    title: str
    text: Text | None = None
    limits: tuple[float, float] = (float("-inf"), float("inf"))


def scatter(points: Sequence[Point], x_axis: Axis, y_axis: Axis, label: str) -> Markup:
    """Marks on a logarithmic x axis where sizes differ much; labels put where they hide least."""
    x = _x_scale([point.x for point in points] + [point.x_high for point in points if point.x_high])
    y = padded([value for point in points for value in (point.low, point.high)], HEIGHT - _BOTTOM, _TOP,
               floor=max(1e-3, 0.01 * max(abs(point.y) for point in points)), limits=y_axis.limits)
    shifts = side_by_side([x(point.x) for point in points])
    shifted = list(zip(points, shifts, strict=True))
    anchors = [(x(point.x) + shift, y(point.y), point.label) for point, shift in shifted]
    placed = place_labels(anchors, [box for point, shift in shifted for box in _spans(point, shift, x, y)])
    title = f"{x_axis.title} (logarithmic)" if x.logarithmic else x_axis.title
    return svg(
        WIDTH, HEIGHT, label,
        axes(x, y, title, y_axis.title, x_text=None if x.logarithmic else x_axis.text, y_text=y_axis.text),
        join(_bars(point, shift, x, y) for point, shift in shifted),
        join(_mark(point, left, top) for point, (left, top, _) in zip(points, anchors, strict=True)),
        join(_label(point, place) for point, place in zip(points, placed, strict=True) if point.label),
        role="group", class_="chart scatter",
    )


def side_by_side(xs: Sequence[float], apart: float = 10.0) -> list[float]:
    """How far each mark moves, in pixels, so that models of (nearly) the same cost do not hide each other."""
    groups: list[list[int]] = []
    for index in sorted(range(len(xs)), key=lambda index: xs[index]):
        if groups and xs[index] - xs[groups[-1][0]] < 0.6 * apart:
            groups[-1].append(index)
        else:
            groups.append([index])
    shifts = [0.0] * len(xs)
    for group in groups:
        for place, index in enumerate(sorted(group)):
            shifts[index] = apart * (place - (len(group) - 1) / 2)
    return shifts


@dataclass(frozen=True)
class Place:
    """Where a label stands: the end of the text that `anchor` names, and its baseline."""

    x: float
    y: float
    anchor: str
    box: Box


def place_labels(anchors: Sequence[tuple[float, float, str]], bars: Sequence[Box]) -> list[Place]:
    """Each label beside, above or below its mark, where it covers least of marks, bars and other labels."""
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y, _ in anchors] + list(bars)
    placed: list[Place] = []
    for x, y, label in anchors:
        options = [_place(x + right, y + down, anchor, label) for right, down, anchor in _OPTIONS]
        costs = [sum(_overlap(one.box, other) for other in taken) + 4 * _outside(one.box) for one in options]
        placed.append(options[costs.index(min(costs))])
        taken.append(placed[-1].box)
    return placed


def _mark(point: Point, left: float, top: float) -> Markup:
    return mark(point.style.shape, left, top, 6, class_=f"mark {point.style.colour}", data_tip=point.tip,
                tabindex="0", role="img", aria_label=point.tip)


def _label(point: Point, place: Place) -> Markup:
    return tag("text", point.label, x=place.x, y=place.y, class_=f"label {place.anchor} {point.style.colour}")


def _place(x: float, y: float, anchor: str, label: str) -> Place:
    width = _LETTER * len(label)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return Place(x, y, anchor, (left, y - 11, left + width, y + 4))


def _spans(point: Point, shift: float, x: Scale, y: Scale) -> list[Box]:
    """What the point's interval and its horizontal bar occupy."""
    left = x(point.x) + shift
    right = left if point.x_high is None else x(point.x_high)
    return [(left - 2, y(point.high), left + 2, y(point.low)), (left, y(point.y) - 3, right, y(point.y) + 3)]


def _x_scale(values: Sequence[float]) -> Scale:
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        return padded_log(values, _LEFT, WIDTH - _RIGHT)
    # models of the same size would else stand between ticks of seven decimals
    floor = 0.1 * max(values)
    return padded(values, _LEFT, WIDTH - _RIGHT, share=0.25, floor=floor, limits=(0.0, float("inf")))


def _bars(point: Point, shift: float, x: Scale, y: Scale) -> Markup:
    """The interval as a vertical line, what `x_high` says as a horizontal one."""
    left, parts = x(point.x) + shift, []
    if point.low < point.high:
        parts.append(tag("line", x1=left, x2=left, y1=y(point.low), y2=y(point.high)))
    if point.x_high is not None and x(point.x_high) > left:
        parts.append(tag("line", x1=left, x2=x(point.x_high), y1=y(point.y), y2=y(point.y), class_="thin"))
    return tag("g", *parts, class_=f"bar {point.style.colour}") if parts else Markup("")


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _outside(box: Box) -> float:
    """How much of the label would be cut off or run into the axis."""
    wide = max(0.0, _LEFT - box[0]) + max(0.0, box[2] - WIDTH)
    high = max(0.0, _TOP - 6 - box[1]) + max(0.0, box[3] - (HEIGHT - _BOTTOM))
    return wide * _LINE + high * (box[2] - box[0])
