"""Rows that list what answers a query and what does not, as tools for search write them: FlagEmbedding (`pos`, `neg`),
Tevatron (`positive_passages`, `negative_passages`), DPR (`positive_ctxs`, `hard_negative_ctxs`), MS MARCO (`passages` with
`is_selected`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from stilla.errors import agreeing, counted
from stilla.recipe.listed import Listed

logger = logging.getLogger(__name__)

POSITIVES = ("pos", "positive", "positives", "positive_passages", "positive_ctxs")
NEGATIVES = ("neg", "hard_negatives", "hard_negative_ctxs", "negative", "negatives", "negative_passages", "negative_ctxs")
_JUDGED = ("passage_text", "is_selected")
_MOST = 50
"""Texts beside an answer that have a column each."""
_MADE = {"documents": pa.list_(pa.string()), "labels": pa.list_(pa.int64()), "positive": pa.string()}
_AT_ONCE = 1000


def apart(split: Dataset, how: Listed | None) -> Dataset:
    """With `columns` a row for every answer, in `positive`, beside what does not answer in `negative_1` and so on, as many
    as every row has; with `lists` a row for every query, with `documents` and their `labels`, 1 and 0. A split that lists
    nothing of this kind, or columns that the recipe names itself, is as it was. Other lists are left out, as nobody reads
    them, and what a model is told before a query (`prompt`)."""
    found = None if how is None else _columns(split)
    if how is None or found is None or {*found} & {*how.named}:
        return split
    told = {"prompt"} if "query" in split.column_names else set()
    kept = [name for name, feature in split.features.items() if isinstance(feature, Value | ClassLabel)
            and name not in {*found, *told, *_MADE} and not name.startswith("negative")]
    plain = split.with_format(None)
    if how.form == "lists":
        return _made(plain, kept, split, lambda rows: _as_lists(rows, found))
    sizes = [len(negatives) for start in range(0, len(split), _AT_ONCE)
             for positives, negatives in _candidates(plain[start : start + _AT_ONCE], found) if positives]
    some = [size for size in sizes if size]
    number = min([*some, _MOST]) if some else 0
    if left := sum(size - number for size in some):
        logger.warning("%d of %d texts that do not answer are left out: rows list %d to %d of them, and every row is read "
                       "with as many, %d", left, sum(some), min(some), max(some), number)
    if without := len(split) - len(sizes):
        logger.warning("%s without an answer %s left out", counted(without, "query"), agreeing(without, "is"))
    return _made(plain, kept, split, lambda rows: _as_columns(rows, found, number))


def _columns(split: Dataset) -> tuple[str, ...] | None:
    """The columns of what answers and what does not, or the one that has both; None where there are none."""
    lower = {name.lower(): name for name in reversed(split.column_names)}
    passages = lower.get("passages")
    feature = None if passages is None else split.features[passages]
    if passages is not None and isinstance(feature, dict) and all(_is_list(feature.get(name)) for name in _JUDGED):
        return (passages,)
    positives, negatives = ([lower[name] for name in names if name in lower and fits(split.features[lower[name]])]
                            for names, fits in ((POSITIVES, _holds_texts), (NEGATIVES, _lists_texts)))
    return (positives[0], negatives[0]) if positives and negatives else None


def _is_list(feature: Any) -> bool:
    return isinstance(feature, List | LargeList)


def _lists_texts(feature: Any) -> bool:
    """Of texts, or of objects with a text, written as a list of them or as an object of lists."""
    if isinstance(feature, dict):
        return _is_list(feature.get("text")) and _is_text(feature["text"].feature)
    if not _is_list(feature):
        return False
    inner = feature.feature
    return _is_text(inner.get("text")) if isinstance(inner, dict) else _is_text(inner)


def _holds_texts(feature: Any) -> bool:
    """A single one, too, where what does not answer is a list."""
    return _lists_texts(feature) or _is_text(feature)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _candidates(rows: Mapping[str, Sequence[Any]], found: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """What answers the query of each row, and what does not."""
    if len(found) == 1:
        for one in rows[found[0]]:
            pairs = list(zip((one or {}).get(_JUDGED[0]) or (), (one or {}).get(_JUDGED[1]) or ()))
            yield [text for text, said in pairs if text and said], [text for text, said in pairs if text and not said]
    else:
        yield from ((_texts(one), _texts(other)) for one, other in zip(rows[found[0]], rows[found[1]]))


def _texts(value: Any) -> list[str]:
    """The texts of a list, with their titles before them."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = [dict(zip(value, one)) for one in zip(*value.values())]
    said = (one if isinstance(one, str) else " ".join(filter(None, (one.get("title"), one.get("text")))) if one else ""
            for one in value or ())
    return [text for text in said if text.strip()]


def _as_lists(rows: Mapping[str, Sequence[Any]], found: Sequence[str]) -> tuple[list[int], Mapping[str, list[Any]]]:
    both = list(_candidates(rows, found))
    return list(range(len(both))), {"documents": [[*one, *other] for one, other in both],
                                    "labels": [[*[1] * len(one), *[0] * len(other)] for one, other in both]}


def _as_columns(
    rows: Mapping[str, Sequence[Any]], found: Sequence[str], number: int
) -> tuple[list[int], Mapping[str, list[Any]]]:
    """A row without anything that does not answer has none: it is an example that cannot be read."""
    of_row = list[int]()
    made = {name: list[str | None]() for name in ("positive", *_named(number))}
    for row, (positives, negatives) in enumerate(_candidates(rows, found)):
        for text in positives:
            of_row.append(row)
            made["positive"].append(text)
            for place, name in enumerate(_named(number)):
                made[name].append(negatives[place] if place < len(negatives) else None)
    return of_row, made


def _named(number: int) -> list[str]:
    return [f"negative_{place}" for place in range(1, number + 1)]


def _made(
    plain: Dataset, kept: Sequence[str], split: Dataset,
    made: Callable[[Mapping[str, Sequence[Any]]], tuple[list[int], Mapping[str, list[Any]]]],
) -> Dataset:
    """`made`: of some rows, in which row each new one begins, and its columns."""
    features = Features({name: split.features[name] for name in kept})
    tables = []
    for start in range(0, len(plain), _AT_ONCE):
        rows = plain[start : start + _AT_ONCE]
        of_row, columns = made(rows)
        tables.append(pa.table({
            **{name: pa.array([rows[name][row] for row in of_row], features[name].pa_type) for name in kept},
            **{name: pa.array(column, _MADE.get(name, pa.string())) for name, column in columns.items()}}))
    if not tables:
        return split
    whole = Dataset(pa.concat_tables(tables))
    return whole.cast(Features({**whole.features, **features}))
