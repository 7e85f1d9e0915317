"""How large, how deep and of what a recipe may be: a file of somebody else must cost neither hours nor memory.

Looked at twice: in the YAML, before anything is made of it (an alias is a word there, and a thousand copies afterwards),
and in the plain values, which may come from Python or the command line too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from stilla.errors import short

SIZE = 1_000_000
"""Characters of a recipe, with everything that aliases repeat."""
NODES = 50_000
"""Keys, values and lists, with everything that aliases repeat."""
DEPTH = 50
"""Lists and mappings within each other."""
DIGITS = 60
"""Characters of a number."""
TEXT = 20_000
"""Characters of one value: a recipe names what is long, and does not hold it."""
LARGEST = 2**63
"""Whole numbers are below."""

_NUMBER = re.compile(r"[-+]?(0[xob][0-9a-fA-F_]*|[0-9][0-9_.eE+-]*)")
_NOTHING = ("", "~", "null", "Null", "NULL")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


class BeyondError(MarkedYAMLError):
    """Something that no recipe has, at its place; the problem is in words already."""


@dataclass
class _Extent:
    """What a node comes to with all that aliases in it repeat."""

    nodes: int = 0
    characters: int = 0
    height: int = 0

    def add(self, other: _Extent) -> None:
        self.nodes += other.nodes
        self.characters += other.characters
        self.height = max(self.height, other.height)


@dataclass
class _Open(_Extent):
    """A list or mapping that has not ended. `keys`: of a mapping, with the line that each is in."""

    anchor: str | None = None
    keys: dict[str, int] | None = None
    children: int = field(default=0)


def look(text: str) -> list[Any]:
    """The events of a YAML document, of which its values are made; raise where it is beyond what a recipe may be.

    Raises:
        BeyondError: too large, too deep, a tag, an alias within itself, a key that is no word, a key that is there twice.
        MarkedYAMLError: no YAML.
    """
    known: dict[str, _Extent] = {}
    open_: list[_Open] = [_Open()]
    events = []
    for event in YAML(typ="safe", pure=True).parse(text):
        events.append(event)
        if isinstance(event, DocumentStartEvent) and (event.tags or event.version not in (None, (1, 2))):
            raise _beyond(event, "a directive (%YAML, %TAG) that no recipe uses; leave it out")
        if isinstance(event, CollectionEndEvent):
            ended = open_.pop()
            ended.height += 1
            _end(ended, ended.anchor, known, open_, event)
        elif isinstance(event, NodeEvent):
            _look_at_key(event, open_[-1])
            if isinstance(event, CollectionStartEvent):
                _refuse_tag(event)
                open_.append(_Open(1, 0, 0, event.anchor, {} if isinstance(event, MappingStartEvent) else None))
                _refuse_size(event, open_)
            elif isinstance(event, AliasEvent):
                if any(one.anchor == event.anchor for one in open_):
                    name = short(str(event.anchor), 80)
                    raise _beyond(event, f"the alias *{name} stands within what it means; write the value out")
                _end(known.get(event.anchor, _Extent()), None, known, open_, event)
            elif isinstance(event, ScalarEvent):
                _refuse_tag(event)
                _refuse_digits(event)
                _end(_Extent(1, len(event.value), 0), event.anchor, known, open_, event)
    return events


def _end(extent: _Extent, anchor: str | None, known: dict[str, _Extent], open_: list[_Open], event: Any) -> None:
    """A node is there with all that is in it."""
    if anchor is not None:
        known[anchor] = extent
    open_[-1].add(extent)
    open_[-1].children += 1
    _refuse_size(event, open_)


def _refuse_size(event: Any, open_: list[_Open]) -> None:
    if len(open_) - 1 + open_[-1].height > DEPTH:
        raise _beyond(event, f"lists and mappings more than {DEPTH} deep; a recipe needs a few")
    if sum(one.nodes for one in open_) > NODES:
        raise _beyond(event, f"more than {NODES:,} keys and values, with what aliases repeat; a recipe has a few dozen")
    if sum(one.characters for one in open_) > SIZE:
        raise _beyond(event, f"more than {SIZE:,} characters, with what aliases repeat; a recipe has a few thousand")


def _look_at_key(event: Any, within: _Open) -> None:
    if within.keys is None or within.children % 2:
        return
    if not isinstance(event, ScalarEvent):
        raise _beyond(event, "a list, mapping or alias as a key; expected a word. Put quotes around text with brackets")
    if event.style is None and event.value in _NOTHING:
        raise _beyond(event, "a key that is nothing; expected a word")
    line = event.start_mark.line + 1
    if event.value in within.keys:
        raise _beyond(event, f"the key {short(event.value, 80)} is there twice, first in line {within.keys[event.value]}; "
                             "keep one of them")
    within.keys[event.value] = line


def _refuse_tag(event: Any) -> None:
    if event.tag is not None:
        raise _beyond(event, "a YAML tag (!...) that no recipe uses; put quotes around text")


def _refuse_digits(event: ScalarEvent) -> None:
    if event.style is None and len(event.value) > DIGITS and _NUMBER.fullmatch(event.value):
        raise _beyond(event, f"a number of {len(event.value):,} characters; put quotes around text")


def _beyond(event: Any, problem: str) -> BeyondError:
    return BeyondError(problem=problem, problem_mark=event.start_mark)


_DEEP = f"more than {DEPTH} lists and mappings within each other"
_MANY = f"more than {NODES:,} keys and values"


def too_large(plain: Mapping[str, Any]) -> str | None:
    """Why plain values are too deep or too many even to be copied."""
    return next((text for _, text in beyond(plain) if text in (_DEEP, _MANY)), None)


def beyond(plain: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Places of plain values that no recipe has, whatever stands there, and what is wrong: numbers that are none or too
    large, keys that are no words, dates, characters that no text has, nestings without an end."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), plain)]
    looked_at = 0
    while waiting:
        place, value = waiting.pop()
        looked_at += 1
        if len(place) > DEPTH:
            yield place, _DEEP
        elif looked_at > NODES:
            yield place, _MANY
            return
        elif isinstance(value, Mapping):
            wrong = [key for key in value if isinstance(key, bool) or not isinstance(key, str | int)]
            yield from (((*place, key), "a key has to be a word; put quotes around it") for key in wrong)
            waiting += [((*place, key), one) for key, one in value.items() if key not in wrong]
        elif isinstance(value, list | tuple):
            waiting += [((*place, index), one) for index, one in enumerate(value)]
        elif problem := _of_value(value):
            yield place, problem


def _of_value(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {json.dumps(value)}; expected a finite number"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a whole number that is too large to be meant"
    if isinstance(value, date):
        return f"got the date {value}; put quotes around it to make it text"
    if isinstance(value, bytes | set):
        return f"got {type(value).__name__}; expected text, a number, a list or keys and values"
    if isinstance(value, str) and len(value) > TEXT:
        return f"a text of {len(value):,} characters; expected at most {TEXT:,}"
    if isinstance(value, str) and (found := _NO_TEXT.search(value)):
        return f"got a text with the character {found[0]!a}, which no text has"
    return ""
