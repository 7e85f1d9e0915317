"""Which columns hold inputs and label: what the recipe says, else what their names say, else a question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, List, Value

from stilla.data import LABEL_NAMES, label_column
from stilla.errors import DataError, all_of, did_you_mean, one_of
from stilla.tasks.shared import left_out
from stilla.tasks.shared.sections import Labelled, Pictures, Texts

TEXTS = (
    "text", "sentence", "review", "review_body", "content", "document", "tweet", "comment", "utterance",
    "query", "question", "headline", "title", "body", "message", "description", "abstract", "docstring",
)  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"),
    ("question1", "question2"), ("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"),
    ("sentence_a", "sentence_b"), ("question", "sentence"), ("query", "passage"), ("question", "passage"),
    ("question", "answer"), ("question", "context"), ("question", "response"), ("query", "response"), ("query", "answer"),
    ("query", "document"), ("claim", "evidence"), ("context", "response"), ("prompt", "response"), ("text", "text_pair"),
)  # fmt: skip
_WAY_OUT = "Set data.text: one column, or two for pairs; what it does not name is then left out."
_LISTED = 12  # columns in a message
IMAGES = ("image", "img", "picture", "photo", "pixels", "image_bytes", "bytes")


def labels(section: Labelled, train: Dataset) -> tuple[str, ...]:
    """The label's column, or several columns of 0 and 1.

    Raises:
        DataError: no column of that name, or the names leave it open.
    """
    if section.label is not None:
        return existing("label", section.label, train)
    found = label_column(train, section)
    if found is not None:
        return (found,)
    usual = [name for name in train.column_names if name.lower() in LABEL_NAMES]
    why = f"{one_of(usual)} could be it" if usual else "no column is called label, intent, class or the like"
    raise DataError(f"data.label: which column is the label? {why}. {columns_of(train)} Set data.label.")


def texts(section: Texts, train: Dataset, taken: Sequence[str], *, alone: bool = False) -> tuple[str, ...]:
    """The text's column, or two for pairs; `taken` are the label's. `alone`: a column called text is all that there is.

    Raises:
        DataError: no such column, no text in it, the names leave it open, or another text would be left out.
    """
    if section.text is not None:
        if len(section.text) > 2:
            raise DataError(f"data.text: got {len(section.text)} columns; expected one, or two for pairs.")
        return existing("text", section.text, train, is_text, "text")
    candidates = [name for name in train.column_names if name not in taken and is_text(train.features[name])]
    meant = {*TEXTS, *(name for pair in PAIRS for name in pair)}
    candidates = [name for name in candidates if name.lower() in meant or _worded(train, name)] or candidates
    lower = {name.lower(): name for name in reversed(candidates)}
    known = [lower[name] for name in TEXTS if name in lower]
    pair = next(((lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower), None)
    if pair and not set(known) - set(pair):
        left_out.refuse(train, pair, _WAY_OUT, taken=taken)
        return pair
    usual = [name for name in known if name.lower() in ("text", "sentence")]
    for unambiguous in (usual, known, candidates) if not pair else ():
        if len(unambiguous) == 1:
            by_name = alone and unambiguous[0].lower() in ("text", "content", "document")
            left_out.refuse(train, unambiguous, _WAY_OUT, taken=taken, other="say" if by_name else "refuse")
            return (unambiguous[0],)
    why = f"{one_of(known or candidates)} could be it" if candidates else "no column holds text"
    raise DataError(f"data.text: which column is the text? {why}. {columns_of(train)} Set data.text.")


def one_text(section: Texts, train: Dataset) -> tuple[str, ...]:
    """The text's column, of a task that reads one text.

    Raises:
        DataError: no such column, two of them, or the names leave it open.
    """
    found = texts(section, train, (), alone=True)
    if len(found) > 1:
        raise DataError(f"data.text: got {all_of(found)}; expected one column. {columns_of(train)} For a causal model and a "
                        "text that answers another, set data.prompt and data.completion.")
    return found


def image(section: Pictures, train: Dataset, taken: Sequence[str], fits: Callable[[Any], bool]) -> str:
    """The picture's column: the recipe's, the only one that can hold pictures, or one with a usual name.

    Raises:
        DataError: no such column, or the names leave it open.
    """
    if section.image is not None:
        return existing("image", (section.image,), train, fits, "pictures")[0]
    candidates = [name for name in train.column_names if name not in taken and fits(train.features[name])]
    usual = [name for name in candidates if name.lower() in IMAGES]
    for unambiguous in (candidates, usual):
        if len(unambiguous) == 1:
            return str(unambiguous[0])
    why = f"{one_of(candidates)} could be it" if candidates else (
        "no column holds pictures, or nothing but names of files beside the table (images/1.jpg)")
    raise DataError(f"data.image: which column is the picture? {why}. {columns_of(train)} Set data.image.")


def missing(columns: Sequence[str], splits: Mapping[str, Dataset]) -> list[str]:
    """Problems: columns of the training data that another split does not have."""
    return [
        f"data.{name}: there is no column {column!r}. "
        f"{columns_of(split)}{did_you_mean(column, split.column_names)}"
        for name, split in splits.items()
        for column in columns
        if column not in split.column_names
    ]


def is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _worded(train: Dataset, column: str) -> bool:
    """Whether a column of text holds more than numbers (of rows, in a CSV) where one looks."""
    some = train.select_columns([column]).with_format(None)[:1000][column]
    return not all(re.fullmatch(r"\s*[+-]?[\d.,]+\s*", text) for text in some if text is not None)


def values(split: Dataset, column: str) -> list[Any]:
    """A whole column as plain Python values, without decoding the others."""
    plain: list[Any] = split.select_columns([column]).with_format(None)[:][column]
    return plain


def existing(
    key: str,
    names: Sequence[str],
    train: Dataset,
    fits: Callable[[Any], bool] = lambda _: True,
    what: str = "",
) -> tuple[str, ...]:
    for name in names:
        if name not in train.column_names:
            raise DataError(
                f"data.{key}: got {name!r}, which is no column. {columns_of(train)}"
                f"{did_you_mean(name, train.column_names)}"
            )
        if not fits(train.features[name]):
            raise DataError(
                f"data.{key}: the column {name!r} holds {said(train.features[name])}; expected {what}. "
                f"{columns_of(train)}"
            )
    if len(set(names)) < len(names):
        raise DataError(f"data.{key}: the same column twice: {one_of(names)}.")
    return tuple(names)


def columns_of(split: Dataset) -> str:
    columns = [f"{name} ({said(feature)})" for name, feature in split.features.items()]
    if len(columns) > _LISTED:
        return f"The columns are {', '.join(columns[:_LISTED])} and {len(columns) - _LISTED} more."
    return f"The columns are {all_of(columns)}."


def said(feature: Any) -> str:
    """A column's type in a word or two."""
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    if isinstance(feature, Value):
        return "text" if is_text(feature) else str(feature.dtype)
    if isinstance(feature, List) and isinstance(feature.feature, Mapping):
        return f"lists of {{{', '.join(feature.feature)}}}"
    return type(feature).__name__.lower()


def named(columns: Sequence[str]) -> str:
    """Columns in words: 'title' and 'text'."""
    return " and ".join(repr(column) for column in columns)
