"""Examples as words with a tag each, or a text with spans: which columns, which scheme, and what cannot be meant."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from datasets import ClassLabel, Dataset, Json, LargeList, List, Value

from stilla.data import are_unlabelled
from stilla.errors import DataError, all_at_once, all_of, did_you_mean, one_of, quoted
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import IN_WORDS, Entity, Scheme
from stilla.tasks.text.sections import TokenClassificationData
from stilla.tasks.text.words import Span, Splitting, Words

logger = logging.getLogger(__name__)

TOKENS = ("tokens", "words", "forms", "tokenized_text")
TAGS = ("tags", "ner_tags", "pos_tags", "labels", "label", "ner", "pos", "upos", "xpos")
SPANS = ("entities", "spans", "labels", "label", "annotations", "ner")
_START, _END = ("start", "start_offset", "start_char", "begin"), ("end", "end_offset", "end_char", "stop")
_LABEL = ("label", "type", "tag", "entity", "entity_group", "entity_type", "class")


@dataclass(frozen=True)
class Tagged:
    """An example: its words, and their tags by themselves (`tags`) or as entities. Both None where nobody has labelled it."""

    words: Words
    tags: tuple[str, ...] | None = None
    entities: tuple[Entity, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """How examples are read: `words` and `said`, the columns of words (or text) and of tags (or spans).

    `names`: the tags by number, where the data have numbers. `scheme`: None where every tag is its word's own.
    """

    form: Literal["tags", "spans"]
    words: str
    said: str
    splitting: Splitting
    names: tuple[str, ...] | None = None
    scheme: Scheme | None = None

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
        for row, (words, said) in enumerate(zip(self.worded(split), answers)):
            try:
                if words is None:
                    raise ValueError(f"{self.words!r} has no words, or one without a letter")
                found[row] = Tagged(words) if free[row] or not labelled else self._tagged(words, said, named)
            except ValueError as error:
                wrong.setdefault(str(error), []).append(row)
        return found, wrong

    def _tagged(self, words: Words, said: Any, named: Mapping[Any, str] | None) -> Tagged:
        if self.form == "spans":
            return Tagged(words, entities=tuple(words.entities([_span(one) for one in said or ()])))
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

    def spelt(self, split: Dataset) -> _Names:
        """The name of every value that may stand in the column of tags."""
        feature = split.features[self.said]
        inner = feature.feature if isinstance(feature, List | LargeList) else feature
        names = self.names or (tuple(inner.names) if isinstance(inner, ClassLabel) else None)
        return _Names(None if isinstance(inner, Value) and _columns.is_text(inner) else names)


class _Names(dict[Any, str]):
    """Numbers by their names; texts are their own."""

    def __init__(self, names: Sequence[str] | None) -> None:
        super().__init__(enumerate(names or ()))
        self.numbered = names is not None

    def __missing__(self, value: Any) -> str:
        if isinstance(value, str) and value.strip() and not self.numbered:
            return value
        raise KeyError(value)


def _named(tag: Any, named: Mapping[Any, str], column: str) -> str:
    try:
        return named[tag]
    except KeyError:
        raise ValueError(f"{column!r} holds {quoted(tag)}, which is no tag") from None


def _span(said: Any) -> Span:
    """`[start, end, label]`, or an object with these, by the names that programs give them.

    Raises:
        ValueError: neither.
    """
    if isinstance(said, Mapping):
        parts = [next((said[name] for name in names if said.get(name) is not None), None) for names in (_START, _END, _LABEL)]
    else:
        parts = list(said) if isinstance(said, list | tuple) else []
    if len(parts) == 3:
        start, end, label = parts
        if type(start) is int and type(end) is int and isinstance(label, str) and label.strip():
            return start, end, label
    raise ValueError(f"the span {quoted(said)}; expected [start, end, label] or {{start, end, label}}, in characters")


# --- what the data are ---


@dataclass(frozen=True)
class Found:
    """`names`: the tags of models that are trained on these data: in IOB2 where they are entities. `types`: of entities;
    empty where there are none. `several`: those with entities of several words."""

    reading: Reading
    names: tuple[str, ...]
    types: tuple[str, ...] = ()
    several: frozenset[str] = frozenset()


def understand(section: TokenClassificationData, splits: Mapping[str, Dataset]) -> Found:
    """How all splits are read, and which tags there are.

    Raises:
        DataError: every problem with columns, then with examples: words and tags that are not as many, tags that break their
            scheme, spans that end within a word or overlap, tags that the training data do not have.
    """
    train = splits.get("train", next(iter(splits.values())))
    reading = _columns_of(section, train)
    if absent := _columns.missing([reading.words, reading.said], splits):
        raise all_at_once(absent, DataError)
    reading = replace(reading, names=section.labels if reading.form == "tags" else None)
    _refuse_numbers(reading, splits)
    told: set[tuple[str, str]] = set()
    known = _looked_at(section, reading, splits, told)
    reading = _with_scheme(section, reading, known)
    if reading.scheme is not None:
        known = _looked_at(section, reading, splits, told)
    where = "train" if "train" in splits else next(iter(splits))
    if reading.scheme is None:
        return Found(reading, _tags(section, reading, splits, known, where))
    types, several = _types(section, reading, splits, known, where)
    if not types:
        raise DataError(f"data.{where}: there is no entity in {reading.said!r}: there is nothing to learn.")
    return Found(reading, schemes.names_of(types, "iob2"), types, several)


def _looked_at(
    section: TokenClassificationData, reading: Reading, splits: Mapping[str, Dataset], told: set[tuple[str, str]]
) -> dict[str, dict[int, Tagged]]:
    """The examples of every split that can be used. `told`: what has been said already of those that are left out."""
    problems: list[str] = []
    known = {}
    for name, split in splits.items():
        known[name], wrong = reading.examples(split)
        for why, rows in wrong.items():
            if (name, why) not in told:
                found = f"data.{name}: {why}, in {len(rows)} of {len(split)} examples"
                attempt(problems, refuse_or_leave_out, section, found, rows_in_words(split, rows))
                told.add((name, why))
        if not known[name]:
            problems.append(f"data.{name}: there is no example left in {reading.words!r}: all {len(split)} cannot be used.")
    if problems:
        raise all_at_once(problems, DataError)
    return known


def _columns_of(section: TokenClassificationData, train: Dataset) -> Reading:
    by_spans = section.text is not None or section.spans is not None
    by_tags = section.tokens is not None or section.tags is not None
    if by_spans and by_tags:
        raise DataError("data: got words with tags and a text with spans at once; expected `tokens` and `tags`, or `text` "
                        "and `spans`.")
    lists = [name for name in train.column_names if holds_words(train.features[name])]
    if by_spans or (not by_tags and not lists):
        text = _one("text", section.text, train, _columns.is_text, "text", _columns.TEXTS, ())
        spans = _one("spans", section.spans, train, _may_be_spans, "lists of [start, end, label]", SPANS, (text,))
        return Reading("spans", text, spans, section.words)
    tokens = _one("tokens", section.tokens, train, holds_words, "lists of words", TOKENS, ())
    tags = _one("tags", section.tags, train, _may_be_tags, "lists of tags", TAGS, (tokens,))
    return Reading("tags", tokens, tags, section.words)


def _one(key: str, said: str | None, train: Dataset, fits: Any, what: str, usual: Sequence[str], taken: Sequence[str]) -> str:
    """The recipe's column, or the one that can only be meant.

    Raises:
        DataError: no such column, it holds something else, or the names leave it open.
    """
    if said is not None:
        return _columns.existing(key, (said,), train, fits, what)[0]
    fitting = [name for name in train.column_names if name not in taken and fits(train.features[name])]
    by_name = [name for name in fitting if name.lower() in usual]
    for unambiguous in (by_name, fitting):
        if len(unambiguous) == 1:
            return str(unambiguous[0])
    why = f"{one_of(by_name or fitting)} could be it" if fitting else (
        f"no column holds {what} (JSON, Parquet and CoNLL's columns have lists, CSV has none)")
    raise DataError(f"data.{key}: which column has the {key}? {why}. {_columns.columns_of(train)} Set data.{key}.")


def holds_words(feature: Any) -> bool:
    """Whether a column holds lists of texts."""
    return _is_list_of(feature, _columns.is_text)


def usual_words(pool: Dataset, lists: Sequence[str]) -> Sequence[str] | None:
    """Of columns with lists of texts, the one that is meant; None where that is open."""
    named = [name for name in lists if name.lower() in TOKENS]
    return next((some for some in (named, lists) if len(some) == 1), None)


def _is_list_of(feature: Any, fits: Any) -> bool:
    return isinstance(feature, List | LargeList) and fits(feature.feature)


def _may_be_tags(feature: Any) -> bool:
    return _is_list_of(feature, lambda one: isinstance(one, ClassLabel) or _columns.is_text(one) or (
        isinstance(one, Value) and one.dtype.startswith(("int", "uint"))))


def _may_be_spans(feature: Any) -> bool:
    return isinstance(feature, Json) or _is_list_of(feature, lambda one: isinstance(one, Mapping | Json | List | LargeList))


def _with_scheme(
    section: TokenClassificationData, reading: Reading, known: Mapping[str, Mapping[int, Tagged]]
) -> Reading:
    """As the recipe says, or as the tags of all splits are written."""
    if reading.form == "spans":
        if section.scheme not in (None, "iob2"):
            raise DataError(f"data.scheme: got {section.scheme!r}, a way to write tags; spans have none. Leave it out.")
        return replace(reading, scheme="iob2")
    if section.scheme is not None:
        return reading if section.scheme == "none" else replace(reading, scheme=section.scheme)
    sequences = [one.tags for examples in known.values() for one in examples.values() if one.tags]
    tags = {tag for one in sequences for tag in one}
    if not schemes.are_tags_of_entities(tags):
        if tags == {"O"}:
            return replace(reading, scheme="iob2")
        if "O" in tags:
            raise DataError(f"data.scheme: {reading.said!r} holds O and tags without B-, I- before them "
                            f"({all_of(sorted(tags)[:5])}): are words of one tag that follow each other an entity (io), or "
                            "has every word a tag for itself (none)? Set data.scheme.")
        return reading
    kinds = [[schemes.kinded(tag) for tag in one] for one in sequences]
    scheme, broken = schemes.fitting(kinds)
    if scheme is None:
        listed = all_of([f"{len(rows):,} break {IN_WORDS[one]}" for one, rows in broken.items()])
        raise DataError(f"data.scheme: {reading.said!r} is written in no scheme: of {len(kinds):,} examples {listed}. Set "
                        "data.scheme to see which, or io to take words of one type that follow each other for one entity.")
    logger.info("data.scheme: %r is read as %s", reading.said, IN_WORDS[scheme])
    return replace(reading, scheme=scheme)


def _refuse_numbers(reading: Reading, splits: Mapping[str, Dataset]) -> None:
    if reading.form == "spans":
        return
    for name, split in splits.items():
        feature = split.features[reading.said]
        inner = feature.feature if isinstance(feature, List | LargeList) else feature
        if isinstance(inner, Value) and not _columns.is_text(inner) and reading.names is None:
            raise DataError(f"data.{name}: {reading.said!r} holds numbers, and nobody says what they stand for; name all "
                            "tags in the order of their numbers in data.labels.")


def _tags(section: TokenClassificationData, reading: Reading, splits: Mapping[str, Dataset],
          known: Mapping[str, Mapping[int, Tagged]], where: str) -> tuple[str, ...]:
    """Names of the tags: those that the recipe or the data declare, else those of the training data."""
    declared = reading.spelt(splits[where])
    occurring = {tag for tagged in known[where].values() for tag in tagged.tags or ()}
    names = section.labels or (tuple(declared.values()) if declared.numbered else tuple(sorted(occurring)))
    _refuse_unknown(reading, splits, {name: {row: set(one.tags or ()) for row, one in tagged.items()}
                                      for name, tagged in known.items()}, names, "tag")
    if where == "train" and len(occurring) < 2:
        raise DataError(f"data.train: all words have the same tag in {reading.said!r}: there is nothing to learn.")
    return tuple(names)


def _types(section: TokenClassificationData, reading: Reading, splits: Mapping[str, Dataset],
           known: Mapping[str, Mapping[int, Tagged]], where: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Types of entities, likewise, and those that have entities of several words in any split."""
    declared: Sequence[str] = section.labels or (
        tuple(reading.spelt(splits[where]).values()) if reading.form == "tags" else ())
    every = [entity for tagged in known[where].values() for entity in tagged.entities or ()]
    found = dict.fromkeys(schemes.kinded(name)[1] for name in declared if name != "O")
    types = tuple(found) or tuple(sorted({name for _, _, name in every}))
    _refuse_unknown(reading, splits, {name: {row: {kind for _, _, kind in one.entities or ()} for row, one in tagged.items()}
                                      for name, tagged in known.items()}, types, "type of entity")
    several = {name for tagged in known.values() for one in tagged.values() for start, end, name in one.entities or ()
               if end - start > 1}
    return types, frozenset(several)


def _refuse_unknown(reading: Reading, splits: Mapping[str, Dataset], said: Mapping[str, Mapping[int, set[str]]],
                    names: Sequence[str], what: str) -> None:
    problems = []
    for split, by_row in said.items():
        unknown: dict[str, list[int]] = {}
        for row, there in by_row.items():
            for one in sorted(there - set(names)):
                unknown.setdefault(one, []).append(row)
        if unknown:
            first = list(unknown.items())[:5]
            listed = all_of([f"{quoted(one)} ({rows_in_words(splits[split], rows)})" for one, rows in first])
            hint = did_you_mean(next(iter(unknown)), names)
            problems.append(f"data.{split}: {reading.said!r} holds a {what} that is not known: {listed}; known are "
                            f"{all_of(list(names)[:12])}.{hint} Correct it, or name all in data.labels.")
    if problems:
        raise all_at_once(problems, DataError)


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
