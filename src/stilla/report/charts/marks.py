"""Which colour (a CSS class) and which mark stands for whom, the same in every chart of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report.charts.svg import MARKS, mark, svg, tag


@dataclass(frozen=True)
class Style:
    """`colour` is a class of page.css, never text from data; `shape` one of MARKS."""

    colour: str
    shape: str


_SUBJECTS = {
    "teacher": Style("teacher", "square"),
    "baseline": Style("baseline", "triangle"),
    "student": Style("student", "circle"),
    "onnx": Style("onnx", "diamond"),
    "int8": Style("int8", "cross"),
    "baseline-onnx": Style("baseline", "diamond"),
    "baseline-int8": Style("baseline", "cross"),
}
_EXTRA = Style("extra", "wedge")
_COLOURS = 8


def subject_style(name: str) -> Style:
    return _SUBJECTS.get(name, _EXTRA)


def numbered_styles(names: Iterable[str]) -> Mapping[str, Style]:
    """Colours and marks for names that are not known beforehand: terms of a loss, runs."""
    return {name: Style(f"n{index % _COLOURS}", MARKS[index % len(MARKS)])
            for index, name in enumerate(dict.fromkeys(names))}


def mark_key(style: Style) -> Markup:
    """The mark as a legend shows it; beside its name, so silent."""
    return svg(14, 14, "", mark(style.shape, 7, 7, 5, class_=f"mark {style.colour}"),
               class_="key-mark", role="presentation", aria_hidden="true")


def line_key(colour: str) -> Markup:
    """A piece of the line as a legend shows it, dashes included."""
    return svg(26, 10, "", tag("line", x1=1, x2=25, y1=5, y2=5, class_=f"line {colour}"),
               class_="key-line", role="presentation", aria_hidden="true")
