"""How well candidates answer, as a column says it: numbers, true and false, or words that the recipe has numbers for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List, Value

from stilla.errors import DataError, all_of, quoted
from stilla.tasks.retrieval.naming import is_number, number_in
from stilla.tasks.retrieval.sections import RerankingData
from stilla.tasks.shared import columns as _columns

SCORES = ("score", "scores", "label", "labels", "relevance", "relevant", "grade", "grades", "relevance_score",
          "is_duplicate")
_TRUTH = {"true": 1.0, "false": 0.0}
"""As tables of texts write what JSON and Parquet have a type for."""
_SHOWN = 5
"""Words in a message."""


def is_list(feature: Any, of: Any) -> bool:
    return isinstance(feature, List | LargeList) and bool(of(feature.feature))


def score_of(section: RerankingData, split: Dataset, *, listed: bool) -> str | None:
    """The column that says how well a candidate answers (`listed`: the candidates of a list); None where none does.

    Raises:
        DataError: the names leave it open; or nothing can be read from it, which would teach and measure nothing.
    """
    named = section.score is not None and section.score in split.column_names
    usual = [str(section.score)] if named else [name for name in split.column_names if name.lower() in SCORES]
    problems = {name: _problem(section, split, name, listed=listed) for name in usual}
    found = [name for name, problem in problems.items() if problem is None]
    if len(found) > 1:
        raise DataError(f"data.score: {all_of([repr(one) for one in found])} could say how well a candidate answers. Set "
                        "data.score to one of them.")
    for problem in () if found else problems.values():
        if problem or named:
            raise DataError(problem or f"data.score: the column {section.score!r} is empty.")
    return found[0] if found else None


def said_in(split: Dataset, column: str, grades: Mapping[str, float], *, listed: bool) -> list[list[float]]:
    """(rows, candidates): what a column says; NaN where it says nothing.

    Raises:
        ValueError: a word that stands for no number.
    """
    return [[one if isinstance(one, float) else number_in(one) for one in row]
            for row in _values(split, column, grades, listed=listed)]


def unused(section: RerankingData, splits: Iterable[tuple[Dataset, str | None]]) -> list[str]:
    """Problems: words of the recipe that no column of scores holds. `splits`: with that column."""
    there = {word for split, column in splits if column is not None for word in _words(split, column)}
    lacking = [word for word in section.grades if word not in there]
    return [f"data.grades: got {all_of([quoted(word) for word in lacking])}, which no column of scores holds; expected words "
            "that stand there"] if lacking and lacking == [*section.grades] else []


def _words(split: Dataset, column: str) -> set[str]:
    feature = split.features[column]
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    if isinstance(inner, ClassLabel):
        return {*inner.names}
    values = _columns.values(split, column)
    every = values if inner is feature else [one for row in values for one in row or ()]
    return {one.strip() for one in every if isinstance(one, str)}


def are_amounts(rows: Iterable[Sequence[float]]) -> bool:
    """Whether any number is not whole, or below 0."""
    return any(one < 0 or one % 1 for row in rows for one in row if not math.isnan(one))


def _problem(section: RerankingData, split: Dataset, name: str, *, listed: bool) -> str | None:
    """Why a column does not say how well candidates answer; empty where nothing stands in it, None where it says it."""
    feature = split.features[name]
    if isinstance(feature, Value) and feature.dtype == "null":
        return ""
    if not (is_list(feature, _is_readable) if listed else _is_readable(feature)):
        what = "a list of numbers, one for each candidate" if listed else "numbers"
        return (f"data.score: the column {name!r} holds {_columns.said(feature)}; expected {what}. "
                f"{_columns.columns_of(split)} If it does not say how well a candidate answers, leave it out of the file.")
    said = [one for row in _values(split, name, section.grades, listed=listed) for one in row]
    words = Counter(one for one in said if isinstance(one, str))
    if not words:
        return None if is_number(feature) or any(not math.isnan(one) for one in said if isinstance(one, float)) else ""
    shown = ", ".join(quoted(word) for word, _ in words.most_common(_SHOWN)) + (", ..." if len(words) > _SHOWN else "")
    return (f"data.score: the column {name!r} holds words that are no numbers: {shown}. Say what they stand for: "
            "data.grades: {relevant: 1, irrelevant: 0}, with these words; or leave the column out of the file if it does not "
            "say how well a candidate answers.")


def _values(split: Dataset, column: str, grades: Mapping[str, float], *, listed: bool) -> list[list[float | str]]:
    """(rows, candidates): what a column says in numbers, NaN where it says nothing; a word that stands for none as it is."""
    plain, feature = _columns.values(split, column), split.features[column]
    inner = feature.feature if listed else feature
    names = inner.names if isinstance(inner, ClassLabel) and (grades or not _are_in_order(inner.names)) else None

    def read(one: Any) -> float | str:
        if isinstance(inner, ClassLabel) and one is not None:
            one = None if one < 0 else one if names is None else names[one]
        if not isinstance(one, str) or not one.strip():
            return number_in(one)
        word = one.strip()
        if (known := grades.get(word, _TRUTH.get(word.casefold()))) is not None:
            return float(known)
        try:
            return number_in(word)
        except ValueError:
            return word

    return [[read(one) for one in row or ()] for row in (plain if listed else ([one] for one in plain))]


def _are_in_order(names: Sequence[str]) -> bool:
    """Whether they are two of which the first may be 0 and the second 1: not numbers or truths themselves, nor a word with
    its negation behind it (QNLI's entailment and not_entailment)."""
    if len(names) != 2:
        return False
    first, second = (one.strip().casefold() for one in names)
    return first not in ("yes", "0", "1", *_TRUTH) and not second.endswith(first)


def _is_readable(feature: Any) -> bool:
    """Numbers, true and false, classes or words."""
    return (is_number(feature) or _columns.is_text(feature) or isinstance(feature, ClassLabel)
            or (isinstance(feature, Value) and feature.dtype == "bool"))
