"""Small charts along one axis: the spread over seeds, and a metric of a class inside a table's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report.charts.marks import Style, subject_style
from stilla.report.charts.svg import Scale, Text, join, mark, padded, svg, tag, tick_text
from stilla.scores import Interval

WIDTH = 500
_LEFT, _RIGHT, _ROW = 110, 20, 44


@dataclass(frozen=True)
class Spread:
    """One subject's value per seed, and their mean with its interval."""

    title: str
    style: Style
    seeds: Sequence[float]
    mean: Interval


def seed_strips(spreads: Sequence[Spread], x_title: str, label: str, text: Text,
                limits: tuple[float, float]) -> Markup:
    """A row per subject: a mark per seed, a bar for the mean and its interval."""
    height = _ROW * len(spreads) + 62
    values = [value for one in spreads for value in (*one.seeds, one.mean.low, one.mean.high)]
    x = padded(values, _LEFT, WIDTH - _RIGHT, floor=1e-3, limits=limits)
    bottom = _ROW * len(spreads) + 14
    ticks, written = x.ticks(), tick_text(x)
    return svg(
        WIDTH, height, label,
        *(tag("line", x1=x(tick), x2=x(tick), y1=8, y2=bottom, class_="grid") for tick in ticks),
        *(tag("text", written(tick), x=x(tick), y=bottom + 18, class_="tick middle") for tick in ticks),
        tag("text", x_title, x=WIDTH - _RIGHT, y=bottom + 36, class_="title end"),
        join(_spread(one, 8 + _ROW * (index + .5), x, text) for index, one in enumerate(spreads)),
        class_="chart strips",
    )


def class_strip(values: Mapping[str, float], names: Sequence[str], low: float) -> Markup:
    """The metric of each subject on one class, from `low` to 1; silent, because the numbers stand beside it."""
    x = Scale(low, 1.0, 7, 173)
    middle = 9.0
    ends = [x(values[name]) for name in ("teacher", "student") if name in values] or [x.start]
    marks = [(subject_style(name), x(values[name])) for name in names if name in values]
    return svg(
        180, 18, "",
        tag("line", x1=7, x2=173, y1=middle, y2=middle, class_="grid"),
        tag("line", x1=min(ends), x2=max(ends), y1=middle, y2=middle, class_="link"),
        join(mark(style.shape, at, middle, 4.5, class_=f"mark {style.colour}") for style, at in marks),
        class_="cell-strip", role="presentation", aria_hidden="true",
    )


def _spread(one: Spread, y: float, x: Scale, text: Text) -> Markup:
    colour, mean = one.style.colour, one.mean
    return tag(
        "g",
        tag("text", one.title, x=_LEFT - 14, y=y + 4, class_=f"label end {colour}"),
        tag("line", x1=x(mean.low), x2=x(mean.high), y1=y, y2=y, class_=f"range {colour}"),
        tag("line", x1=x(mean.value), x2=x(mean.value), y1=y - 12, y2=y + 12, class_=f"mean {colour}"),
        *(mark(one.style.shape, x(seed), y, 5, class_=f"mark {colour}", data_tip=f"{one.title}: {text(seed)}")
          for seed in one.seeds),
    )
