"""Texts as words with their places in the text, so that tokens of any tokenizer can be found to belong to them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from stilla.errors import quoted
from stilla.tasks.text.schemes import Entity

Splitting = Literal["words", "spaces", "characters"]

PATTERNS: Mapping[Splitting, str] = {"words": r"\w+|[^\w\s]", "spaces": r"\S+", "characters": r"\S"}
"""The same in regular expressions; of `words` without what some scripts join letters by."""

_ASCII = re.compile(r"\w+|[^\w\s]", re.ASCII)
_SPACES = re.compile(r"\S+")
_JOINERS = "\u200c\u200d"  # within words of Persian and of Indian languages

Span = tuple[int, int, str]
"""Characters from, to (not included), and what they are."""


class SpanError(ValueError):
    """A span that cannot be read. `kind`: what is wrong, whichever it is."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Words:
    """Word i is `text[starts[i] : ends[i]]`."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, words: Sequence[str]) -> Words:
        """Given words, with a space between any two."""
        starts, ends, at = [], [], 0
        for word in words:
            starts.append(at)
            ends.append(at + len(word))
            at += len(word) + 1
        return cls(" ".join(words), tuple(starts), tuple(ends))

    @classmethod
    def split(cls, text: str, how: Splitting) -> Words:
        """`words`: runs of letters, digits and underscores, and every other character by itself; `spaces`: what stands
        between spaces; `characters`: every character but spaces."""
        places = {"words": _words, "spaces": _between_spaces, "characters": _characters}[how](text)
        return cls(text, tuple(start for start, _ in places), tuple(end for _, end in places))

    def listed(self) -> list[str]:
        return [self.text[start:end] for start, end in zip(self.starts, self.ends)]

    def part(self, first: int, end: int) -> Words:
        """Some of the words, and the text that they stand in."""
        begin = self.starts[first]
        return Words(self.text[begin : self.ends[end - 1]], tuple(start - begin for start in self.starts[first:end]),
                     tuple(stop - begin for stop in self.ends[first:end]))

    def entities(self, spans: Sequence[Span]) -> list[Entity]:
        """Spans of characters as entities of words.

        Raises:
            SpanError: a span that is not in the text, begins or ends within a word, or shares a word with another; which.
        """
        starts = {start: word for word, start in enumerate(self.starts)}
        ends = {end: word + 1 for word, end in enumerate(self.ends)}
        found: list[Entity] = []
        for start, end, name in sorted(spans):
            if not 0 <= start < end <= len(self.text):
                raise SpanError("beyond", f"a span from {start} to {end} in a text of {len(self.text)} characters")
            if start not in starts or end not in ends:
                raise SpanError("within", f"the span {quoted(self.text[start:end])} ({name}, {start} to {end}) begins or "
                                "ends within a word")
            found.append((starts[start], ends[end], name))
        return self._apart(found)

    def pieces(self, spans: Sequence[Span]) -> list[Entity]:
        """Spans of words, the last not included, as entities.

        Raises:
            SpanError: a span of words that are not there, or that shares a word with another; which.
        """
        if beyond := [one for one in spans if not 0 <= one[0] < one[1] <= len(self)]:
            start, end, _ = beyond[0]
            raise SpanError("beyond", f"a span from word {start} to word {end - 1} in a text of {len(self)} words")
        return self._apart(sorted(spans))

    def _apart(self, found: list[Entity]) -> list[Entity]:
        shared = next(((one, other) for one, other in pairwise(found) if other[0] < one[1]), None)
        if shared is not None:
            first, second = (quoted(self.text[self.starts[one[0]] : self.ends[one[1] - 1]]) for one in shared)
            raise SpanError("shared", f"the spans {first} ({shared[0][2]}) and {second} ({shared[1][2]}) share words")
        return found


def _words(text: str) -> list[tuple[int, int]]:
    if text.isascii():
        return [found.span() for found in _ASCII.finditer(text)]
    places: list[tuple[int, int]] = []
    within = False
    for place, one in enumerate(text):
        # marks are part of the letter before them: vowels of Hindi, accents that are written apart
        letter = one.isalnum() or one == "_" or (within and (unicodedata.category(one)[0] == "M" or one in _JOINERS))
        if letter and within:
            places[-1] = (places[-1][0], place + 1)
        elif not one.isspace():
            places.append((place, place + 1))
        within = letter
    return places


def _between_spaces(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _SPACES.finditer(text)]


def _characters(text: str) -> list[tuple[int, int]]:
    return [(place, place + 1) for place, one in enumerate(text) if not one.isspace()]
