"""What a person is shown of an example: plain data that pages draw without knowing a task.

A kind of view is a class here, and its drawing in `report/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, ClassVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

RIGHT = "right"
"""Under which name views of sounds have what the data say."""


class Checked:
    """Plain data that are checked when they are read: no field that is unknown, no other type, no number without an end."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class Mark(Checked):
    """A piece of a text: characters `start` to `end` (not included; where they are equal, a place between two).

    label: what it is said to be; empty where the place speaks for itself. by: who says so, a subject; empty: the data.
    """

    start: int
    end: int
    label: str = ""
    by: str = ""


@dataclass(frozen=True)
class Text(Checked):
    """A text, maybe with pieces of it marked; marks may overlap.

    Raises:
        ValueError: a mark of what is not in the text.
    """

    text: str
    marks: tuple[Mark, ...] = ()

    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        for mark in self.marks:
            if not 0 <= mark.start <= mark.end <= len(self.text):
                raise ValueError(f"a mark from {mark.start} to {mark.end} in a text of {len(self.text)} characters")


@dataclass(frozen=True)
class Picture(Checked):
    """A picture, as a `data:` URI."""

    uri: str

    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Box(Checked):
    """A box in a picture, its sides as shares of the picture's width and height.

    label: what it is said to be. by: who says so, a subject; empty: the data.

    Raises:
        ValueError: it does not lie in the picture.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.left <= self.right <= 1 and 0 <= self.top <= self.bottom <= 1):
            raise ValueError(f"a box from {self.left}, {self.top} to {self.right}, {self.bottom}; a picture is 0 to 1")


@dataclass(frozen=True)
class Boxed(Checked):
    """A picture, as a `data:` URI, with boxes. `ratio`: of its width to its height."""

    uri: str
    ratio: float
    boxes: tuple[Box, ...] = ()

    kind: ClassVar[str] = "boxes"

    def __post_init__(self) -> None:
        if not 0.001 <= self.ratio <= 1000:
            raise ValueError(f"a picture that is {self.ratio} times as wide as high")


@dataclass(frozen=True)
class Listed(Checked):
    """One entry of a list. `right`: whether it is what was looked for. `value`: how it came to stand there."""

    text: str
    right: bool
    value: float


@dataclass(frozen=True)
class Ranking(Checked):
    """A question, maybe about a picture, and what each subject found for it, the best first."""

    question: str
    lists: Mapping[str, tuple[Listed, ...]]
    picture: str = ""
    """As a `data:` URI, where the question is about one."""

    kind: ClassVar[str] = "ranking"


@dataclass(frozen=True)
class Overlays(Checked):
    """A picture, and with what each subject (empty: the data) says of its pixels in colours, as `data:` URIs. `legend`: names
    of the colours, as #rrggbb."""

    uri: str
    said: Mapping[str, str]
    legend: tuple[tuple[str, str], ...] = ()

    kind: ClassVar[str] = "overlays"


@dataclass(frozen=True)
class Weights(Checked):
    """A text in pieces, and by subject how much each piece weighs in its answer, from -1 (against it) to 1 (for it).

    Raises:
        ValueError: not a weight for each piece, or one beyond.
    """

    pieces: tuple[str, ...]
    said: Mapping[str, tuple[float, ...]]

    kind: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        for subject, weights in self.said.items():
            if len(weights) != len(self.pieces) or not all(-1 <= one <= 1 for one in weights):
                raise ValueError(f"{len(weights)} weights of {subject!r:.50} for {len(self.pieces)} pieces, from -1 to 1")


@dataclass(frozen=True)
class Sound(Checked):
    """A sound, as a `data:` URI, and what is said in it: by the data, under the name `right`, and by each subject. `weights`:
    of its parts in their order, a sign each as high as it is loud."""

    uri: str
    texts: Mapping[str, Text] = field(default_factory=dict)
    weights: Weights | None = None

    kind: ClassVar[str] = "sound"


@dataclass(frozen=True)
class Sounding(Checked):
    """A text, and by whom it is spoken, as `data:` URIs: by the data, under the name `right`, and by each subject."""

    text: str
    said: Mapping[str, str]

    kind: ClassVar[str] = "sounding"


View = Text | Picture | Boxed | Ranking | Overlays | Sound | Sounding | Weights


def plain(view: View) -> dict[str, Any]:
    """As JSON holds it; `view_of` reads it back."""
    return {"kind": view.kind, **asdict(view)}


def view_of(stored: Any) -> View:
    """What `plain` wrote.

    Raises:
        ValueError: a kind that this version does not know, or other fields than that kind has.
    """
    if isinstance(stored, View):
        return stored
    kind = stored.get("kind") if isinstance(stored, Mapping) else None
    found = next((one for one in get_args(View) if one.kind == kind), None)
    if found is None:
        raise ValueError(f"a view of the kind {kind!r:.50} is not known")
    values = {name: value for name, value in stored.items() if name != "kind"}
    try:
        # as JSON, which has no tuples
        view: View = _checked(found).validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or kind}: {first['msg']}") from None
    return view


@cache
def _checked(kind: type[View]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
