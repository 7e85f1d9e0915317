"""Examples as words with a tag each, or as a text with spans, and what is wrong with those that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import ClassLabel, Dataset, LargeList, List, Value

from stilla.data import are_unlabelled
from stilla.errors import DataError, all_at_once, quoted
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import IN_WORDS, Entity, Scheme
from stilla.tasks.text.sections import LABEL_OF_SPAN, TokenClassificationData
from stilla.tasks.text.words import PATTERNS, Span, SpanError, Splitting, Words

_START, _END = ("start", "start_offset", "start_char", "begin"), ("end", "end_offset", "end_char", "stop")


@dataclass(frozen=True)
class Tagged:
    """An example: its words, and their tags by themselves (`tags`) or as entities. Both None where nobody has labelled it."""

    words: Words
    tags: tuple[str, ...] | None = None
    entities: tuple[Entity, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """How examples are read: `words` and `said`, the columns of words (or text) and of tags (or spans). Spans are of a text's
    characters, `pieces` of words.

    `names`: the tags by number, where the data have numbers. `scheme`: None where every tag is its word's own. `last_too`:
    whether the end of a span of words is its last word, and not the one behind.
    """

    form: Literal["tags", "spans", "pieces"]
    words: str
    said: str
    splitting: Splitting
    names: tuple[str, ...] | None = None
    scheme: Scheme | None = None
    last_too: bool = False

    @property
    def pattern(self) -> str:
        """What a word is in a text, for whoever asks a model without Stilla: given words have a space between them."""
        return PATTERNS[self.splitting if self.form == "spans" else "spaces"]

    def worded(self, split: Dataset) -> list[Words | None]:
        """The words of every example; None where there are none."""
        rows = _columns.values(split, self.words)
        if self.form == "spans":
            return [Words.split(text, self.splitting) if text and text.strip() else None for text in rows]
        return [Words.of(words) if words and all(word and word.strip() for word in words) else None for words in rows]

    def examples(self, split: Dataset) -> tuple[dict[int, Tagged], dict[str, list[int]]]:
        """Those that can be used, by row; and rows by what is wrong with them, in words."""
        free = are_unlabelled(split)
        labelled = self.said in split.column_names
        answers: Sequence[Any] = _columns.values(split, self.said) if labelled else [None] * len(split)
        named = self.spelt(split) if labelled and self.form == "tags" else None
        found: dict[int, Tagged] = {}
        wrong: dict[str, list[int]] = {}
        kinds: dict[str, str] = {}  # every span is another, and what is wrong is the same
        for row, (words, said) in enumerate(zip(self.worded(split), answers)):
            try:
                if words is None:
                    raise ValueError(f"{self.words!r} has no words, or one without a letter")
                found[row] = Tagged(words) if free[row] or not labelled else self._tagged(words, said, named)
            except ValueError as error:
                why = kinds.setdefault(error.kind, str(error)) if isinstance(error, SpanError) else str(error)
                wrong.setdefault(why, []).append(row)
        return found, {f"{why}{', and others like it' * (why in kinds.values() and len(rows) > 1)}": rows
                       for why, rows in wrong.items()}

    def _tagged(self, words: Words, said: Any, named: Mapping[Any, str] | None) -> Tagged:
        if self.form == "spans":
            return Tagged(words, entities=tuple(words.entities([span_in(one) for one in said or ()])))
        if self.form == "pieces":
            spans = [(start, end + self.last_too, name) for start, end, name in map(span_in, said or ())]
            return Tagged(words, entities=tuple(words.pieces(spans)))
        if said is None or len(said) != len(words):
            raise ValueError(f"{self.words!r} and {self.said!r} have not as many words as tags")
        assert named is not None
        tags = tuple(_named(tag, named, self.said) for tag in said)
        if self.scheme is None:
            return Tagged(words, tags)
        kinds = [schemes.kinded(tag) for tag in tags]
        entities, broken = schemes.entities(kinds, self.scheme)
        if broken:
            raise ValueError(f"{self.said!r} breaks {IN_WORDS[self.scheme]} (data.scheme)")
        return Tagged(words, tags, tuple(entities))

    def spelt(self, split: Dataset) -> Names:
        """The name of every value that may stand in the column of tags."""
        inner = inner_of(split.features[self.said])
        names = self.names or (tuple(inner.names) if isinstance(inner, ClassLabel) else None)
        return Names(None if isinstance(inner, Value) and _columns.is_text(inner) else names)


class Names(dict[Any, str]):
    """Numbers by their names; texts are their own."""

    def __init__(self, names: Sequence[str] | None) -> None:
        super().__init__(enumerate(names or ()))
        self.numbered = names is not None

    def __missing__(self, value: Any) -> str:
        if isinstance(value, str) and value.strip() and not self.numbered:
            return value
        raise KeyError(value)


def inner_of(feature: Any) -> Any:
    """What a column's lists hold."""
    return feature.feature if isinstance(feature, List | LargeList) else feature


def _named(tag: Any, named: Mapping[Any, str], column: str) -> str:
    try:
        return named[tag]
    except KeyError:
        raise ValueError(f"{column!r} holds {quoted(tag)}, which is no tag") from None


def span_in(said: Any) -> Span:
    """`[start, end, label]`, or an object with these, by the names that programs give them.

    Raises:
        SpanError: neither.
    """
    if isinstance(said, Mapping):
        parts = [next((said[name] for name in names if said.get(name) is not None), None)
                 for names in (_START, _END, LABEL_OF_SPAN)]
        if isinstance(parts[2], list | tuple) and len(parts[2]) == 1:  # Label Studio's `labels`
            parts[2] = parts[2][0]
    else:
        parts = list(said) if isinstance(said, list | tuple) else []
    if len(parts) == 3:
        start, end, label = parts
        if type(start) is int and type(end) is int and isinstance(label, str) and label.strip():
            return start, end, label
    raise SpanError("form", f"the span {quoted(said)}; expected [start, end, label] or {{start, end, label}}, in characters")


def usable(section: TokenClassificationData, reading: Reading, split: Dataset) -> dict[int, Tagged]:
    """The examples of a split, by row, without those that are left out.

    Raises:
        DataError: some cannot be used, and the recipe does not leave them out; or none is left.
    """
    found, wrong = reading.examples(split)
    if wrong and section.broken == "refuse":
        raise all_at_once([f"data: {why}: {rows_in_words(split, rows)}." for why, rows in wrong.items()], DataError)
    if not found:
        raise DataError(f"there is no example left in {reading.words!r}: all {len(split)} cannot be used.")
    return found
