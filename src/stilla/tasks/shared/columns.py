"""Which columns hold inputs and label: what the recipe says, else what their names say, else a question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from datasets import ClassLabel, Dataset, List, Value

from stilla.data import LABEL_NAMES, label_column
from stilla.errors import DataError, all_of, did_you_mean, one_of
from stilla.tasks.shared.sections import Labelled, Pictures, Prompted, Texts

TEXTS = (
    "text", "sentence", "review", "review_body", "content", "document", "tweet", "comment", "utterance",
    "query", "question", "headline", "title", "body", "message", "description", "abstract", "docstring",
)  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"),
    ("question1", "question2"), ("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"),
    ("sentence_a", "sentence_b"), ("question", "sentence"), ("query", "passage"), ("question", "passage"),
)  # fmt: skip
TALKS = ("messages", "conversation", "conversations")
ANSWERS = (("prompt", "completion"), ("prompt", "response"), ("instruction", "response"), ("instruction", "output"))
_LISTED = 12  # columns in a message
IMAGES = ("image", "img", "picture", "photo", "pixels", "image_bytes", "bytes")


def labels(section: Labelled, train: Dataset) -> tuple[str, ...]:
    """The label's column, or several columns of 0 and 1.

    Raises:
        DataError: no column of that name, or the names leave it open.
    """
    if section.label is not None:
        return _existing("label", section.label, train)
    found = label_column(train, section)
    if found is not None:
        return (found,)
    usual = [name for name in train.column_names if name.lower() in LABEL_NAMES]
    why = f"{one_of(usual)} could be it" if usual else "no column is called label, intent, class or the like"
    raise DataError(f"data.label: which column is the label? {why}. {_columns_of(train)} Set data.label.")


def texts(section: Texts, train: Dataset, taken: Sequence[str]) -> tuple[str, ...]:
    """The text's column, or two for pairs; `taken` are the label's.

    Raises:
        DataError: no such column, no text in it, or the names leave it open.
    """
    if section.text is not None:
        if len(section.text) > 2:
            raise DataError(f"data.text: got {len(section.text)} columns; expected one, or two for pairs.")
        return _existing("text", section.text, train, is_text, "text")
    candidates = [name for name in train.column_names if name not in taken and is_text(train.features[name])]
    lower = {name.lower(): name for name in reversed(candidates)}
    known = [lower[name] for name in TEXTS if name in lower]
    pair = next(((lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower), None)
    if pair and not set(known) - set(pair):
        return pair
    usual = [name for name in known if name.lower() in ("text", "sentence")]
    for unambiguous in (usual, known, candidates) if not pair else ():
        if len(unambiguous) == 1:
            return (unambiguous[0],)
    why = f"{one_of(known or candidates)} could be it" if candidates else "no column holds text"
    raise DataError(f"data.text: which column is the text? {why}. {_columns_of(train)} Set data.text.")


def language(section: Prompted, train: Dataset) -> tuple[Literal["text", "prompt", "messages"], tuple[str, ...]]:
    """What a causal language model learns from, and its columns: messages, a prompt and its completion, or a text.

    Raises:
        DataError: no such column, half of a pair, or the names leave it open.
    """
    if (section.prompt is None) != (section.completion is None):
        lacking = "completion" if section.completion is None else "prompt"
        raise DataError(f"data.{lacking}: a prompt and its completion come together; name both columns. "
                        f"{_columns_of(train)}")
    given = [name for name in ("text", "prompt", "messages") if getattr(section, name) is not None]
    if len(given) > 1:
        raise DataError(f"data: got {all_of(given)}; expected one of text, prompt with completion, or messages.")
    lower = {name.lower(): name for name in reversed(train.column_names)}
    if section.messages is not None:
        return "messages", _existing("messages", (section.messages,), train, is_talk, "lists of {role, content}")
    if section.prompt is not None and section.completion is not None:
        prompt = _existing("prompt", (section.prompt,), train, is_text, "text")
        return "prompt", (*prompt, *_existing("completion", (section.completion,), train, is_text, "text"))
    if section.text is not None:
        return "text", one_text(section, train)
    talks = [lower[name] for name in TALKS if name in lower and is_talk(train.features[lower[name]])]
    if len(talks) == 1:
        return "messages", (talks[0],)
    pair = [(lower[a], lower[b]) for a, b in ANSWERS if a in lower and b in lower]
    if len(pair) == 1 and all(is_text(train.features[name]) for name in pair[0]):
        return "prompt", pair[0]
    for name in (lower[name] for name in TALKS if name in lower):
        _refuse_other_talk(name, train)
    return "text", one_text(section, train)


def _refuse_other_talk(name: str, train: Dataset) -> None:
    """A column that is called like conversations and holds them in another shape; as text, their marks would be learnt."""
    feature = train.features[name]
    if isinstance(feature, List) and isinstance(feature.feature, Mapping):
        raise DataError(f"data.messages: the column {name!r} holds {said(feature)}; expected lists of {{role, content}}, "
                        "where one of the roles is assistant. Rename the keys, and roles that are called otherwise.")
    first = next((one for one in train.select(range(min(len(train), 20)))[name] if one), None)
    if is_text(feature) and re.match(r'\s*\[?\s*\{\s*"', str(first)):
        raise DataError(f"data.messages: the column {name!r} holds conversations as JSON text; expected lists of {{role, "
                        "content}. Write them as lists, not as strings, or name a column of plain text (data.text).")


def one_text(section: Texts, train: Dataset) -> tuple[str, ...]:
    """The text's column, of a task that reads one text.

    Raises:
        DataError: no such column, two of them, or the names leave it open.
    """
    found = texts(section, train, ())
    if len(found) > 1:
        raise DataError(f"data.text: got {all_of(found)}; expected one column. {_columns_of(train)} For a causal model and a "
                        "text that answers another, set data.prompt and data.completion.")
    return found


def image(section: Pictures, train: Dataset, taken: Sequence[str], fits: Callable[[Any], bool]) -> str:
    """The picture's column: the recipe's, the only one that can hold pictures, or one with a usual name.

    Raises:
        DataError: no such column, or the names leave it open.
    """
    if section.image is not None:
        return _existing("image", (section.image,), train, fits, "pictures")[0]
    candidates = [name for name in train.column_names if name not in taken and fits(train.features[name])]
    usual = [name for name in candidates if name.lower() in IMAGES]
    for unambiguous in (candidates, usual):
        if len(unambiguous) == 1:
            return str(unambiguous[0])
    why = f"{one_of(candidates)} could be it" if candidates else "no column holds pictures"
    raise DataError(f"data.image: which column is the picture? {why}. {_columns_of(train)} Set data.image.")


def missing(columns: Sequence[str], splits: Mapping[str, Dataset]) -> list[str]:
    """Problems: columns of the training data that another split does not have."""
    return [
        f"data.{name}: there is no column {column!r}. "
        f"{_columns_of(split)}{did_you_mean(column, split.column_names)}"
        for name, split in splits.items()
        for column in columns
        if column not in split.column_names
    ]


def is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def is_talk(feature: Any) -> bool:
    """Whether a column holds lists of messages."""
    inside = feature.feature if isinstance(feature, List) else None
    return isinstance(inside, Mapping) and {"role", "content"} <= set(inside)


def values(split: Dataset, column: str) -> list[Any]:
    """A whole column as plain Python values, without decoding the others."""
    plain: list[Any] = split.select_columns([column]).with_format(None)[:][column]
    return plain


def _existing(
    key: str,
    names: Sequence[str],
    train: Dataset,
    fits: Callable[[Any], bool] = lambda _: True,
    what: str = "",
) -> tuple[str, ...]:
    for name in names:
        if name not in train.column_names:
            raise DataError(
                f"data.{key}: got {name!r}, which is no column. {_columns_of(train)}"
                f"{did_you_mean(name, train.column_names)}"
            )
        if not fits(train.features[name]):
            raise DataError(
                f"data.{key}: the column {name!r} holds {said(train.features[name])}; expected {what}. "
                f"{_columns_of(train)}"
            )
    if len(set(names)) < len(names):
        raise DataError(f"data.{key}: the same column twice: {one_of(names)}.")
    return tuple(names)


def _columns_of(split: Dataset) -> str:
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
