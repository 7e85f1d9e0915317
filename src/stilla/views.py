"""What a person is shown of an example: plain data that pages draw without knowing a task.

A kind of view is a class here, and its drawing in `report/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Mark:
    """A piece of a text: characters `start` to `end` (not included; where they are equal, a place between two).

    label: what it is said to be; empty where the place speaks for itself. by: who says so, a subject; empty: the data.
    """

    start: int
    end: int
    label: str = ""
    by: str = ""


@dataclass(frozen=True)
class Text:
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
class Picture:
    """A picture, as a `data:` URI."""

    uri: str

    kind: ClassVar[str] = "picture"


View = Text | Picture


def plain(view: View) -> dict[str, Any]:
    """As JSON holds it; `view_of` reads it back."""
    return {"kind": view.kind, **asdict(view)}


def view_of(stored: Mapping[str, Any]) -> View:
    """What `plain` wrote.

    Raises:
        ValueError: a kind that this version does not know.
    """
    values = {name: value for name, value in stored.items() if name != "kind"}
    if stored["kind"] == Text.kind:
        return Text(values["text"], tuple(Mark(**mark) for mark in values["marks"]))
    if stored["kind"] == Picture.kind:
        return Picture(**values)
    raise ValueError(f"a view of the kind {stored['kind']!r} is not known")
