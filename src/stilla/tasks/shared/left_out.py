"""Columns beside those that names chose: what belongs to an example is never left out without a word."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset, Json, LargeList, List, Value

from stilla.errors import DataError, all_of

logger = logging.getLogger(__name__)

BELONGS = frozenset((
    "instruction", "instructions", "input", "inputs", "output", "outputs", "prompt", "completion", "response", "responses",
    "question", "questions", "answer", "answers", "context", "contexts", "passage", "evidence", "claim", "premise",
    "hypothesis", "query", "reply", "system", "system_prompt", "history", "chosen", "rejected", "choices", "options",
    "messages", "conversation", "conversations", "tools", "functions", "documents", "chat_template_kwargs", "reasoning",
    "thinking", "rationale", "solution", "text_pair",
))  # fmt: skip
"""Names of what an example means, whatever type it has: answers may be numbers."""

BESIDE = frozenset((
    "title", "headline", "subject", "summary", "abstract", "highlights", "description", "tldr", "keywords", "text",
))  # fmt: skip
"""Names of texts that may go with another one, and often do not: said when they are left out."""

ABOUT = frozenset((
    "id", "idx", "index", "uid", "uuid", "guid", "key", "url", "uri", "link", "dataset", "subset", "split", "category",
    "categories", "topic", "topics", "tag", "tags", "type", "kind", "lang", "language", "locale", "license", "author", "user",
    "username", "date", "time", "timestamp", "created_at", "updated_at", "model", "model_name", "file", "filename",
    "file_name", "path", "hash", "sha", "domain", "level", "difficulty", "meta", "metadata", "section", "version", "label",
    "labels", "label_text", "label_name", "source_dataset", "data_source",
))  # fmt: skip
"""Names of what is known about an example and is no part of it."""

_LOOKED_AT = 200


def refuse(
    train: Dataset, chosen: Sequence[str], way_out: str, *, taken: Sequence[str] = (),
    other: Literal["refuse", "say"] = "refuse",
) -> None:
    """Columns of text beside the `chosen` ones: those that belong to the example are refused, the rest is said.

    What is empty everywhere, or repeats what was chosen, is nothing that could be lost.

    Args:
        way_out: what to set in the recipe.
        taken: columns that are read as something else, as the label.
        other: what happens to texts whose names say nothing.

    Raises:
        DataError: the columns, and the way out.
    """
    said: list[str] = []
    lost: list[str] = []
    read = {*chosen, *(name.rpartition(".")[0] for name in chosen), *taken}
    for name in train.column_names:
        if name in read or not (_holds_text(train.features[name]) or name.lower() in BELONGS):
            continue
        place = _place(name, train, other)
        if place != "about" and not _is_empty(train, name) and not _repeats(train, name, chosen):
            (lost if place == "belongs" else said).append(name)
    if lost:
        raise DataError(f"data: {_named(chosen)} would be read, and {_named(lost)} left out, which may well be a part of the "
                        f"examples. {way_out}")
    if said:
        logger.warning("data: left out beside %s: %s", _named(chosen), _named(said))


def _place(name: str, train: Dataset, other: Literal["refuse", "say"]) -> Literal["belongs", "beside", "about"]:
    lower = name.lower()
    if lower in BELONGS:
        return "belongs"
    if lower in BESIDE:
        return "beside"
    if lower in ABOUT or lower.endswith(("_id", "_ids", "_url", "_uri", "_hash")):
        return "about"
    if other == "say" or not _is_prose(train, name):
        return "beside"
    return "belongs"


def _holds_text(feature: Any) -> bool:
    if isinstance(feature, Value):
        return feature.dtype in ("string", "large_string")
    if isinstance(feature, List | LargeList):
        return _holds_text(feature.feature)
    if isinstance(feature, Mapping):
        return any(_holds_text(inner) for inner in feature.values())
    return isinstance(feature, Json)


def _is_prose(train: Dataset, name: str) -> bool:
    """Whether most of its texts are of several words, and few of them the same."""
    texts = [text for text in _some(train, name) if isinstance(text, str) and text.strip()]
    words = sum(len(text.split()) > 1 for text in texts)
    return 2 * words > len(texts) and (len(texts) < 20 or 2 * len(set(texts)) > len(texts))


def _is_empty(train: Dataset, name: str) -> bool:
    if not all(_nothing(value) for value in _some(train, name)):
        return False
    return all(_nothing(value) for value in train.select_columns([name]).with_format(None)[:][name])


def _nothing(value: Any) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and value.strip() in ("", "[]", "{}"))


def _repeats(train: Dataset, name: str, chosen: Sequence[str]) -> bool:
    """Whether it says nothing new: a part of what was chosen (a conversation's first message), or all of it written out."""
    columns = [one for one in chosen if one in train.column_names]
    for value, *others in zip(_some(train, name), *(_some(train, one) for one in columns)):
        mine, theirs = _all_text(value), [text for other in others for text in _all_text(other)]
        written_out = len(theirs) > 1 and all(text in "\n".join(mine) for text in theirs)
        if not _nothing(value) and not (mine and set(mine) <= set(theirs)) and not written_out:
            return False
    return True


def _all_text(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, Mapping):
        return [text for name, one in value.items() if name not in ("role", "from") for text in _all_text(one)]
    return [text for one in value for text in _all_text(one)] if isinstance(value, list) else []


def _some(train: Dataset, name: str) -> list[Any]:
    """Its values at even distances."""
    rows = sorted({len(train) * number // _LOOKED_AT for number in range(_LOOKED_AT)}) if len(train) else []
    values: list[Any] = train.select(rows).select_columns([name]).with_format(None)[:][name]
    return values


def _named(columns: Sequence[str]) -> str:
    return all_of([repr(name) for name in columns])
