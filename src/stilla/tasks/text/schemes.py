"""Entities as tags of their words, and back: IOB1, IOB2, BIOES and IO.

A tag is a *kind* and a *type*: `B-PER` is the kind B and the type PER. Kinds are the letters of IOB2 and BIOES; what others
call L and U (BILOU), M and W (BMEWO) is E and S, I and S. Reading is strict, as seqeval's `mode="strict"`: what breaks the
scheme belongs to no entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

Scheme = Literal["iob1", "iob2", "bioes", "io"]

Entity = tuple[int, int, str]
"""Its first word, the word after its last, its type."""

Kinded = tuple[str, str]
"""Kind and type of a tag; OUT of a word in no entity."""

OUT: Kinded = ("O", "")

_PREFIXED = re.compile(r"([BIESLUMW])-(.+)", re.DOTALL)
_LETTERS = {"L": "E", "U": "S", "M": "I", "W": "S"}
_KINDS: dict[Scheme, str] = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "io": "I"}

IN_WORDS: dict[Scheme, str] = {"iob1": "IOB1", "iob2": "IOB2", "bioes": "BIOES", "io": "IO"}


def kinded(tag: str) -> Kinded:
    """A bare name (`PER`) is the kind I, as in IO."""
    found = _PREFIXED.fullmatch(tag)
    if found is not None:
        return _LETTERS.get(found[1], found[1]), found[2]
    return OUT if tag == "O" else ("I", tag)


def is_prefixed(tag: str) -> bool:
    return _PREFIXED.fullmatch(tag) is not None


def are_tags_of_entities(names: Iterable[str]) -> bool:
    """Whether all but O begin with a letter of a scheme, and there are some."""
    inside = {name for name in names if name != "O"}
    return bool(inside) and all(map(is_prefixed, inside))


def entities(tags: Sequence[Kinded], scheme: Scheme) -> tuple[list[Entity], list[int]]:
    """The entities, in order, and the words whose tags break the scheme."""
    if scheme == "io":
        return _runs(tags), []
    return _bioes(tags) if scheme == "bioes" else _iob(tags, first=scheme == "iob1")


def _runs(tags: Sequence[Kinded]) -> list[Entity]:
    """Words of one type that follow each other, whatever their kinds."""
    types = [kind[1] for kind in tags]
    starts = [word for word, kind in enumerate(tags) if kind != OUT and (word == 0 or types[word - 1] != kind[1])]
    return [(start, _end(types, start), types[start]) for start in starts]


def _end(types: Sequence[str], start: int) -> int:
    return next((word for word in range(start, len(types)) if types[word] != types[start]), len(types))


def _iob(tags: Sequence[Kinded], *, first: bool) -> tuple[list[Entity], list[int]]:
    """`first`: IOB1, where B parts two entities of one type that touch, and all others begin with I."""
    found, wrong = list[Entity](), list[int]()
    start, open_type = 0, ""
    for word, (kind, name) in enumerate([*tags, OUT]):
        goes_on = kind == "I" and name == open_type
        if goes_on:
            continue
        touches = open_type and name == open_type
        if open_type:
            found.append((start, word, open_type))
        begins = kind == "B" or (first and kind == "I")
        start, open_type = word, name if begins else ""
        if kind != "O" and (not begins or (first and kind == "B" and not touches)):
            wrong.append(word)
    return found, wrong


def _bioes(tags: Sequence[Kinded]) -> tuple[list[Entity], list[int]]:
    found, wrong = list[Entity](), list[int]()
    start, open_type = 0, ""
    for word, (kind, name) in enumerate([*tags, OUT]):
        if kind in "IE" and open_type and name == open_type:
            if kind == "E":
                found.append((start, word + 1, name))
                open_type = ""
            continue
        if open_type:  # begun and never ended
            wrong.append(word - 1)
        if kind in "IE":
            wrong.append(word)
        if kind == "S":
            found.append((word, word + 1, name))
        start, open_type = word, name if kind == "B" else ""
    return found, wrong


def tags(found: Iterable[Entity], words: int, scheme: Literal["iob2", "bioes", "io"]) -> list[Kinded]:
    """Tags of so many words. In IO, entities of one type that touch become one."""
    written = [OUT] * words
    for start, end, name in found:
        for word in range(start, end):
            kind = "B" if word == start and scheme != "io" else "I"
            if scheme == "bioes" and word == end - 1:
                kind = "S" if word == start else "E"
            written[word] = (kind, name)
    return written


def touch(found: Sequence[Entity]) -> bool:
    """Whether two of one type follow each other without a word between them."""
    return any(one[1] == other[0] and one[2] == other[2] for one, other in pairwise(found))


def names_of(types: Iterable[str], scheme: Literal["iob2", "bioes", "io"]) -> tuple[str, ...]:
    """All tags of these types, O first."""
    return ("O", *(f"{kind}-{name}" for name in types for kind in _KINDS[scheme]))


def fitting(sequences: Iterable[Sequence[Kinded]]) -> tuple[Scheme | None, dict[Scheme, list[int]]]:
    """The scheme that all sequences keep to, IOB2 where several are; None where there is none. And of each that could be
    meant the sequences that break it."""
    known = list(sequences)
    letters = {kind for sequence in known for kind, _ in sequence}
    meant: tuple[Scheme, ...] = ("bioes",) if letters & {"E", "S"} else ("iob2", "iob1")
    broken = {scheme: [row for row, sequence in enumerate(known) if entities(sequence, scheme)[1]] for scheme in meant}
    return next((scheme for scheme, rows in broken.items() if not rows), None), broken


def of_names(names: Sequence[str]) -> Scheme | None:
    """The scheme of a model with these labels; None where they are no tags of entities.

    IOB1 where a type can go on and never begin, though others can: nobody who trains on IOB2 leaves that out.
    """
    if not are_tags_of_entities(names) or "O" not in names:
        return None
    kinds = {kinded(name) for name in names}
    letters = {kind for kind, _ in kinds} - {"O"}
    if letters & {"E", "S"}:
        return "bioes"
    if letters == {"I"}:
        return "io"
    return "iob1" if any(kind == "I" and ("B", name) not in kinds for kind, name in kinds) else "iob2"
