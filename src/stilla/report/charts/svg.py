"""Elements, scales and axes: what the charts are drawn with. Everything from data is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Text = Callable[[float], str]
"""Writes a number beside an axis."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element: `class_` for class, underscores for hyphens; `None` leaves an attribute out.

    Children and attributes that are not `Markup` are escaped.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
                      for key, value in attributes.items() if value is not None)
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def join(parts: Iterable[str]) -> Markup:
    return Markup("").join(parts)


def svg(width: float, height: float, label: str, *children: object, **attributes: object) -> Markup:
    """A picture that scales to the width it gets; `label` is what a screen reader says."""
    return tag("svg", *children, viewBox=f"0 0 {_plain(width)} {_plain(height)}", aria_label=label,
               **{"role": "img", **attributes})


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a path through the points."""
    return "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`; logarithmic if asked."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round numbers inside the scale: 1, 2, 5 times powers of ten."""
        if self.logarithmic:
            return _log_ticks(self.low, self.high, about)
        step = _nice((self.high - self.low) / max(about, 1))
        first = math.ceil(self.low / step - 1e-9)
        # The small excess keeps a last tick that lies on the edge up to rounding.
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def padded(values: Sequence[float], start: float, end: float, *, share: float = 0.12, floor: float = 1e-9,
           limits: tuple[float, float] = (-math.inf, math.inf)) -> Scale:
    """A linear scale around the values with some air, inside the limits; never of zero width."""
    low, high = min(values), max(values)
    air = max((high - low) * share, floor, abs(high) * 1e-6)
    return Scale(max(low - air, limits[0]), min(high + air, limits[1]), start, end)


def padded_log(values: Sequence[float], start: float, end: float, share: float = 0.12) -> Scale:
    """A logarithmic scale around positive values with some air."""
    low, high = math.log10(min(values)), math.log10(max(values))
    air = max((high - low) * share, 0.1)
    # as far as numbers go
    return Scale(10 ** max(low - air, -307.0), 10 ** min(high + air, 308.0), start, end, logarithmic=True)


def tick_text(scale: Scale, about: int = 6) -> Text:
    """Writes the scale's ticks with just as many decimals as they need."""
    if scale.logarithmic:
        return lambda value: f"{value:,.12f}".rstrip("0").rstrip(".")
    step = _nice((scale.high - scale.low) / max(about, 1))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:,.{decimals}f}".replace("-", "−")


def axes(
    x: Scale, y: Scale, x_title: str, y_title: str, *, x_text: Text | None = None, y_text: Text | None = None,
    x_ticks: Sequence[float] | None = None, y_ticks: Sequence[float] | None = None,
) -> Markup:
    """Grid, tick labels and titles; the y title stands above its axis, so that it needs no turned head."""
    x_text, y_text = x_text or tick_text(x), y_text or tick_text(y)
    x_ticks, y_ticks = x_ticks or x.ticks(), y_ticks or y.ticks()
    bottom = y.start
    return tag(
        "g",
        *(tag("line", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick), class_="grid") for tick in y_ticks),
        *(tag("text", y_text(tick), x=x.start - 8, y=y(tick) + 4, class_="tick end") for tick in y_ticks),
        *(tag("line", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 4, class_="axis") for tick in x_ticks),
        *(tag("text", x_text(tick), x=x(tick), y=bottom + 18, class_="tick middle") for tick in x_ticks),
        tag("line", x1=x.start, x2=x.end, y1=bottom, y2=bottom, class_="axis"),
        tag("text", x_title, x=x.end, y=bottom + 36, class_="title end"),
        tag("text", y_title, x=2, y=y.end - 12, class_="title"),
        class_="axes", aria_hidden="true",
    )


MARKS = ("square", "triangle", "circle", "diamond", "cross", "wedge")
"""Different shapes, so that nobody has to tell colours apart."""


def mark(shape: str, x: float, y: float, size: float = 5, **attributes: object) -> Markup:
    """A mark of about the same area whatever its shape."""
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=size, **attributes)
    s = size
    outlines = {
        "square": [(-.9, -.9), (.9, -.9), (.9, .9), (-.9, .9)],
        "triangle": [(0, -1.15), (1.1, .85), (-1.1, .85)],
        "wedge": [(0, 1.15), (1.1, -.85), (-1.1, -.85)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "cross": [(-1.1, -.6), (-.6, -1.1), (0, -.5), (.6, -1.1), (1.1, -.6), (.5, 0),
                  (1.1, .6), (.6, 1.1), (0, .5), (-.6, 1.1), (-1.1, .6), (-.5, 0)],
    }
    return tag("path", d=polyline((x + s * dx, y + s * dy) for dx, dy in outlines[shape]) + "Z", **attributes)


def _nice(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least the step."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them while they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [round(factor * 10.0 ** power, 12) for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    every = math.ceil(len(ticks) / (about + 2)) if ticks else 1
    return ticks[::every]


def _plain(value: object) -> object:
    """Coordinates with a tenth of a pixel are as good as with ten digits."""
    if isinstance(value, float):
        return f"{value:.1f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
    return value
