"""Views of examples as a page shows them: everything from data is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from stilla.report.charts.marks import subject_style
from stilla.report.table import subject_title
from stilla.views import (
    RIGHT,
    Box,
    Boxed,
    Listed,
    Mark,
    Overlays,
    Picture,
    Ranking,
    Sound,
    Sounding,
    Text,
    View,
    Weights,
)

_LONGEST_TEXT = 600
_LONGEST_ENTRY = 160
_MOST_PIECES = 120
# Only raster pictures: an SVG could bring scripts and addresses of its own.
_PICTURE = re.compile(r"data:image/(?:png|jpeg|jpg|gif|webp|bmp);base64,[A-Za-z0-9+/=\s]+")
_SOUND = re.compile(r"data:audio/(?:mpeg|wav|ogg|flac);base64,[A-Za-z0-9+/=\s]+")

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_WIDE = 320
"""Units of a picture with boxes from left to right."""
_LETTERS = 9

_PLACE = "▁▁"
"""Where something stands that is decided about."""


@dataclass(frozen=True)
class Drawn:
    """A view as HTML. `layout`: `pictures` stand several in a row, `texts` take a line each."""

    html: Markup
    layout: str


def draw(view: View, label: str) -> Drawn:
    """`label`: what is right, for whoever cannot see a picture."""
    if isinstance(view, Picture) and _PICTURE.fullmatch(view.uri):
        return Drawn(Markup('<img src="{}" alt="example of {}" loading="lazy">').format(view.uri, label), "pictures")
    if isinstance(view, Overlays):
        return Drawn(_overlays(view, label), "texts")
    if isinstance(view, Boxed) and _PICTURE.fullmatch(view.uri):
        return Drawn(_with_boxes(view, label), "pictures")
    if isinstance(view, Ranking):
        return Drawn(_side_by_side(view), "texts")
    if isinstance(view, Sound):
        return Drawn(_played(view), "texts")
    if isinstance(view, Sounding):
        return Drawn(_spoken(view), "texts")
    if isinstance(view, Weights):
        return Drawn(_weighed(view), "texts")
    return Drawn(_folded(view if isinstance(view, Text) else Text(view.uri)), "texts")


def _overlays(view: Overlays, label: str) -> Markup:
    """The picture, and beside it what the data and each subject say of it."""
    pictures = {"the picture": (view.uri, ""), **{subject_title(one) if one else "the data": (uri, one)
                                                  for one, uri in view.said.items()}}
    figure = Markup('<figure class="{}"><img src="{}" alt="{}, at an example of {}" loading="lazy">'
                    "<figcaption>{}</figcaption></figure>")
    shown = Markup("").join(
        figure.format(subject_style(subject).colour if subject else "data", uri, title, label, title)
        for title, (uri, subject) in pictures.items() if _PICTURE.fullmatch(uri))
    names = Markup(" ").join(Markup('<span><i style="background:{}"></i>{}</span>').format(colour, name)
                             for name, colour in view.legend if _COLOUR.fullmatch(colour))
    return Markup('<div class="overlays">{}<p class="legend">{}</p></div>').format(shown, names)
def _played(view: Sound) -> Markup:
    """A player, and below it a line for what everybody says is said, and on what everybody's answer rests."""
    said = _player(view.uri) + _lines({name: _pieces(text, 0, len(text.text)) for name, text in view.texts.items()})
    return said if view.weights is None else said + _weighed(view.weights)


def _spoken(view: Sounding) -> Markup:
    """The text, and below it a line with a player for everybody who speaks it."""
    return _folded(Text(view.text)) + _lines({name: _player(uri) for name, uri in view.said.items()})


def _player(uri: str) -> Markup:
    known = _SOUND.fullmatch(uri) is not None
    return Markup('<audio controls preload="none" src="{}"></audio>').format(uri) if known else _folded(Text(uri))


def _lines(said: Mapping[str, Markup]) -> Markup:
    """By whom it is said, the data first called `right`."""
    rows = [Markup('<tr><th class="{}">{}</th><td>{}</td></tr>').format(
        "" if name == RIGHT else subject_style(name).colour, "right" if name == RIGHT else subject_title(name), one)
        for name, one in said.items()]
    table = Markup('<div class="scroll"><table class="said"><tbody>{}</tbody></table></div>').format(Markup("").join(rows))
    return table if rows else Markup("")


def _weighed(view: Weights) -> Markup:
    """A line for each subject, every piece as strong as it weighs: what speaks for the answer warm, what against it cold."""
    rows = [Markup('<tr><th class="{}">{}</th><td>{}</td></tr>').format(
        subject_style(subject).colour, subject_title(subject),
        Markup(" ").join(map(_piece, view.pieces[:_MOST_PIECES], weights)))
        for subject, weights in view.said.items()]
    rest = len(view.pieces) - _MOST_PIECES
    more = Markup('<p class="hint">and {} pieces more</p>').format(rest) if rest > 0 else Markup("")
    return Markup('<div class="scroll"><table class="said"><tbody>{}</tbody></table></div>{}').format(
        Markup("").join(rows), more)


def _piece(piece: str, weight: float) -> Markup:
    colour = "230, 120, 30" if weight > 0 else "40, 110, 220"
    return Markup('<span style="background:rgba({}, {:.2f})" title="{:+.2f}">{}</span>').format(
        Markup(colour), 0.75 * abs(weight), weight, piece)


def _with_boxes(view: Boxed, label: str) -> Markup:
    """The picture, and over it the boxes in the colours of who says them; the data's broken."""
    height = _WIDE / view.ratio
    boxes = Markup("").join(_box(one, height) for one in view.boxes)
    return Markup('<svg class="boxes" viewBox="0 0 {} {:.1f}" role="img" aria-label="example of {}">'
                  '<image href="{}" width="{}" height="{:.1f}"/>{}</svg>').format(
                      _WIDE, height, label, view.uri, _WIDE, height, boxes)


def _box(one: Box, height: float) -> Markup:
    left, top = one.left * _WIDE, one.top * height
    colour = subject_style(one.by).colour if one.by else "data"
    rect = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        colour, left, top, one.right * _WIDE - left, one.bottom * height - top)
    # inside, where there is no room above
    place = top - 2 if top > _LETTERS else top + _LETTERS
    text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(colour, left + 1, place, one.label)
    return rect + text if one.label else rect


def _side_by_side(view: Ranking) -> Markup:
    """The question, with its picture, and a column for each subject's list."""
    lists = {subject: found for subject, found in view.lists.items() if found}
    heads = Markup("").join(Markup('<th class="{}">{}</th>').format(subject_style(one).colour, subject_title(one))
                            for one in lists)
    rows = [Markup("<tr><td>{}</td>{}</tr>").format(number + 1, Markup("").join(
        _entry(found[number]) if number < len(found) else Markup("<td></td>") for found in lists.values()))
        for number in range(max(map(len, lists.values()), default=0))]
    table = Markup('<div class="scroll"><table class="ranking"><thead><tr><th></th>{}</tr></thead>'
                   "<tbody>{}</tbody></table></div>").format(heads, Markup("").join(rows))
    picture = Markup('<img src="{}" alt="{}" loading="lazy">').format(view.picture, view.question) \
        if _PICTURE.fullmatch(view.picture) else Markup("")
    return picture + _folded(Text(view.question)) + table


def _entry(one: Listed) -> Markup:
    text = one.text if len(one.text) <= _LONGEST_ENTRY else f"{one.text[:_LONGEST_ENTRY]} …"
    marked = Markup('<mark class="data" title="relevant">{}</mark>').format(text) if one.right else escape(text)
    return Markup("<td>{} <small>{}{:.3f}</small></td>").format(marked, "✓ " if one.right else "", one.value)


def _folded(view: Text) -> Markup:
    """A long text in two, the second behind a fold; a few words too many are not worth one."""
    where, end = _cut(view.text), len(view.text)
    first, rest = _pieces(view, 0, where), _pieces(view, where, end) if where < end else Markup("")
    fold = Markup("<details><summary>the rest</summary><p>{}</p></details>").format(rest) if rest else ""
    dots = Markup('<span class="ellipsis"> …</span>') if rest else ""
    return Markup('<div class="example"><p>{}{}</p>{}</div>').format(first, dots, fold)


def _cut(text: str) -> int:
    """Where, at a space."""
    if len(text) <= 1.2 * _LONGEST_TEXT:
        return len(text)
    space = text.rfind(" ", _LONGEST_TEXT // 2, _LONGEST_TEXT)
    return _LONGEST_TEXT if space < 0 else space


def _pieces(view: Text, start: int, end: int) -> Markup:
    """The text from start to end, cut wherever a mark begins or ends; a mark's label stands behind it."""
    borders = {start, end, *(border for mark in view.marks for border in (mark.start, mark.end))}
    inside = sorted(border for border in borders if start <= border <= end)
    out = []
    for at, to in zip(inside, [*inside[1:], end]):
        if at > start or start == 0:  # what stands at the fold stands before it
            out += [_placed(mark) for mark in view.marks if mark.start == mark.end == at]
        covering = [mark for mark in view.marks if mark.start <= at < mark.end and to > at]
        out.append(_marked(view.text[at:to], covering) if covering else escape(view.text[at:to]))
        out.append(_labels(mark for mark in covering if mark.end == to))
    return Markup("").join(out)


def _placed(mark: Mark) -> Markup:
    return Markup('<span class="place">{}</span>{}').format(_PLACE, _labels([mark]))


def _marked(text: str, marks: Sequence[Mark]) -> Markup:
    colours = " ".join(subject_style(mark.by).colour if mark.by else "data" for mark in marks)
    return Markup('<mark class="{}">{}</mark>').format(colours, text)


def _labels(marks: Iterable[Mark]) -> Markup:
    return Markup("").join(Markup('<sub class="{}">{}</sub>').format(
        subject_style(mark.by).colour if mark.by else "data", mark.label) for mark in marks if mark.label)
