"""What data of taggers are: which columns, which scheme, which tags; and what cannot be meant."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import ClassLabel, Dataset, Json, LargeList, List, Value

from stilla.errors import DataError, all_at_once, all_of, did_you_mean, one_of, quoted
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import IN_WORDS
from stilla.tasks.text.sections import SPANS, TAGS, WORDS, TokenClassificationData
from stilla.tasks.text.tagged import Reading, Tagged, inner_of, span_in
from stilla.tasks.text.words import SpanError

logger = logging.getLogger(__name__)


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
    if empty := [name for name, examples in known.items() if name != where and _says_none(examples)]:
        why = (f"there is no entity in {reading.said!r}, and entities are what is measured: F1 would be 0 of any model. Give "
               "examples with entities too, or leave it out.")
        raise all_at_once([f"data.{name}: {why}" for name in empty], DataError)
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


def _says_none(examples: Mapping[int, Tagged]) -> bool:
    """Whether somebody has looked for entities in these examples, and there is none."""
    said = [one.entities for one in examples.values() if one.entities is not None]
    return bool(said) and not any(said)


def _columns_of(section: TokenClassificationData, train: Dataset) -> Reading:
    if section.spans is not None and section.tokens is not None and section.text is section.tags is None:
        words = _one("tokens", section.tokens, train, holds_words, "lists of words", WORDS, ())
        return _of_words(section, train, words)
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
    tokens = _one("tokens", section.tokens, train, holds_words, "lists of words", WORDS, ())
    fitting = [name for name in train.column_names if name != tokens and _may_be_tags(train.features[name])]
    pieces = [name for name in train.column_names if name.lower() in SPANS and _may_be_spans(train.features[name])]
    if section.tags is None and not fitting and len(pieces) == 1:
        whole = [name for name in train.column_names
                 if name.lower() in _columns.TEXTS and _columns.is_text(train.features[name])]
        if whole:
            raise DataError(f"data.spans: {pieces[0]!r} stands beside the words of {tokens!r} and the text of {whole[0]!r}: "
                            f"does it count words or characters? Set data.spans: {pieces[0]} with data.tokens: {tokens}, or "
                            f"with data.text: {whole[0]}.")
        return _of_words(section, train, tokens)
    tags = _one("tags", section.tags, train, _may_be_tags, "lists of tags", TAGS, (tokens,))
    return Reading("tags", tokens, tags, section.words)


def _of_words(section: TokenClassificationData, train: Dataset, tokens: str) -> Reading:
    """Some write the last word of a span (GLiNER), some the one behind it (SpERT): the first have spans that end where they
    begin."""
    spans = _one("spans", section.spans, train, _may_be_spans, "lists of [first word, last word, label]", SPANS, (tokens,))
    ends = section.span_ends
    if ends is None:
        ends = "last" if any(_is_of_one(one) for row in _columns.values(train, spans) for one in row or ()) else "behind"
        logger.info("data.span_ends: %s, as %r has %s that ends where it begins", ends, spans,
                    "a span" if ends == "last" else "no span")
    return Reading("pieces", tokens, spans, section.words, last_too=ends == "last")


def _is_of_one(said: Any) -> bool:
    try:
        start, end, _ = span_in(said)
    except SpanError:  # refused where it is read
        return False
    return start == end


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
        f"no column holds {what} (JSON, Parquet and CoNLL's columns have lists, CSV has none; where a row is a word, "
        "data.sentence names the column that says of which sentence)")
    raise DataError(f"data.{key}: which column has the {key}? {why}. {_columns.columns_of(train)} Set data.{key}.")


def holds_words(feature: Any) -> bool:
    """Whether a column holds lists of texts."""
    return _is_list_of(feature, _columns.is_text)


def usual_words(pool: Dataset, lists: Sequence[str]) -> Sequence[str] | None:
    """Of columns with lists of texts, the one that is meant; None where that is open."""
    named = [name for name in lists if name.lower() in WORDS]
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
    if reading.form != "tags":
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
    if reading.form != "tags":
        return
    for name, split in splits.items():
        inner = inner_of(split.features[reading.said])
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
