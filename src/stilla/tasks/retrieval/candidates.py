"""Queries with their candidates, of whatever a split is: pairs, triples, lists, or a folder for search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from stilla.data import are_unlabelled
from stilla.data.retrieval_folders import CANDIDATES, COLUMNS
from stilla.errors import DataError, agreeing, all_of, counted
from stilla.tasks.retrieval.grades import are_amounts, is_list, said_in, score_of
from stilla.tasks.retrieval.naming import ANSWERING, ASKING, OTHERS, relevant_in
from stilla.tasks.retrieval.sections import RerankingData
from stilla.tasks.shared import columns as _columns

Kinds = Literal["pairs", "triples", "lists", "search"]
_LISTS = ("candidates", "documents", "docs", "passages", "texts", "contexts", "answers")
_ALONE = (*ANSWERING, "doc", "candidate", "text", "passage_text", "document_text")


@dataclass(frozen=True)
class Form:
    """`kind`: a query and a candidate a row; a query, what answers it, and what does not; a query and a list; queries and
    documents of a search. `columns`: of the texts. `score`: the column that says how well candidates answer; None where
    nobody says it, or it follows from where a text stands. `amounts`: its numbers are scores, learnt as they are, not grades.
    `grades`: what words in that column stand for.
    """

    kind: Kinds
    columns: tuple[str, ...]
    score: str | None = None
    amounts: bool = False
    grades: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        return self.score is not None or self.kind in ("triples", "search")


@dataclass(frozen=True)
class Asked:
    """A query with candidates. `key`: by what the query is known. `rows`: of each candidate, in the split. `names`: of the
    documents. `grades`: NaN where nobody has said them. `judged`: all grades of the query, also of what is no candidate; None
    without. `theirs`: of each candidate the query and the document that a teacher reads instead; empty: the same."""

    key: str
    query: str
    rows: tuple[int, ...]
    names: tuple[str, ...]
    documents: tuple[str, ...]
    grades: tuple[float, ...]
    judged: Mapping[str, float] | None = None
    theirs: tuple[tuple[str, str], ...] = ()

    @property
    def row(self) -> int:
        """The query's first in the split."""
        return self.rows[0]

    def parts(self, most: int) -> Iterator[Asked]:
        """Of at most so many candidates, each from all over the list."""
        number = -(-len(self.names) // most)
        for first in range(number):
            yield replace(self, rows=self.rows[first::number], names=self.names[first::number],
                          documents=self.documents[first::number], grades=self.grades[first::number],
                          theirs=self.theirs[first::number])

    def with_more(self, other: Asked) -> Asked:
        """Both in one; of a document that stands in both, the better grade."""
        grades = dict(zip(self.names, self.grades))
        texts = dict(zip(other.names, other.documents)) | dict(zip(self.names, self.documents))
        rows = dict(zip(other.names, other.rows)) | dict(zip(self.names, self.rows))
        theirs = dict(zip(other.names, other.theirs)) | dict(zip(self.names, self.theirs))
        for name, grade in zip(other.names, other.grades):
            grades[name] = float(np.fmax(grades.get(name, math.nan), grade))
        judged = None if self.judged is None else _best(self.judged, other.judged or {})
        return replace(self, rows=tuple(rows[one] for one in grades), names=tuple(grades),
                       documents=tuple(texts[one] for one in grades), grades=tuple(grades.values()), judged=judged,
                       theirs=tuple(theirs[one] for one in grades if one in theirs))


def _best(one: Mapping[str, float], other: Mapping[str, float]) -> Mapping[str, float]:
    return {**one, **{name: max(grade, one.get(name, grade)) for name, grade in other.items()}}


def form_of(section: RerankingData, split: Dataset) -> Form:
    """What a split is, by the recipe's columns where it has them, else by its names.

    Raises:
        DataError: the names leave it open, or columns hold something else.
    """
    there = set(split.column_names)
    if set(COLUMNS) <= there:
        return Form("search", ("text",))
    named = section.text if section.text is not None and set(section.text) <= there else None
    columns = named or usual(split)
    if columns is None or len(columns) < 2:
        raise DataError("data.text: which columns are the query and what may answer it? "
                        f"{_columns.columns_of(split)} Set data.text: the query and a candidate (or a list of them), or the "
                        "query, what answers it, and what does not.")
    _columns.existing("text", columns[:1], split, _columns.is_text, "text")
    listed = len(columns) == 2 and is_list(split.features[columns[1]], _columns.is_text)
    if not listed:
        _columns.existing("text", columns[1:], split, _columns.is_text, "text" + " or lists of text" * (len(columns) == 2))
    if len(columns) > 2:
        if section.score is not None and section.score in there:
            raise DataError(f"data.score: got {section.score!r}, and of {all_of([repr(one) for one in columns])} the second "
                            "answers and the others do not. Leave it out, or set data.text to two columns.")
        return Form("triples", tuple(columns))
    score = score_of(section, split, listed=listed)
    form = Form("lists" if listed else "pairs", tuple(columns), score, grades=section.grades)
    return form if score is None else replace(form, amounts=are_amounts(_said(form, split)))


def usual(split: Dataset) -> tuple[str, ...] | None:
    """Which columns are meant, by their names; None where these leave it open."""
    texts = {name.lower(): name for name in reversed(split.column_names) if _columns.is_text(split.features[name])}
    lists = {name.lower(): name for name in split.column_names if is_list(split.features[name], _columns.is_text)}
    asking = [texts[name] for name in ASKING if name in texts]
    others = [texts[name] for name in OTHERS if name in texts]
    listed = [lists[name] for name in (*_LISTS, *_ALONE) if name in lists]
    answering = [texts[name] for name in _ALONE if name in texts and texts[name] not in asking]
    if len(asking) == 1 and len(listed) == 1 and not answering:
        return asking[0], listed[0]
    if len(asking) == len(answering) == 1:
        return (*asking, *answering, *others)
    pairs = [(texts[a], texts[b]) for a, b in _columns.PAIRS if a in texts and b in texts]
    return pairs[0] if len(pairs) == 1 else None


def _said(form: Form, split: Dataset) -> list[list[float]]:
    """(rows, candidates): what the column says; NaN where it says nothing."""
    assert form.score is not None
    return said_in(split, form.score, form.grades, listed=form.kind == "lists")


def problems_of(form: Form, name: str, split: Dataset) -> list[str]:
    """What is wrong with a split's candidates and their scores, in words."""
    if form.score is None:
        return []
    said = _said(form, split)
    free = are_unlabelled(split)
    if form.kind == "lists":
        sizes = [len(one or ()) for one in _columns.values(split, form.columns[1])]
        unlike = [row for row, (size, scores) in enumerate(zip(sizes, said)) if size != len(scores) and not free[row]]
        if unlike:
            row = unlike[0]
            return [f"data.{name}: {len(unlike)} of {len(split)} lists in {form.columns[1]!r} have not as many entries as "
                    f"those in {form.score!r}, first in row {row}: {sizes[row]} and {len(said[row])}. Give a number for each "
                    "candidate."]
    known = [one for row in said for one in row if not math.isnan(one)]
    if not known:
        return [f"data.{name}: {form.score!r} is empty; leave the column out if nobody has said how well candidates answer."]
    if bad := sum(math.isinf(one) for one in known):
        return [f"data.{name}: {counted(bad, 'number')} in {form.score!r} {agreeing(bad, 'is')} infinite."]
    if name != "train" and min(known) < 0:
        return [f"data.{name}: the numbers in {form.score!r} go down to {min(known):g}, and a ranking is measured by gains "
                "of 0 and more. Give grades (0 where a candidate does not answer), or a split without the column."]
    return []


def texts_of(form: Form, split: Dataset) -> list[list[str]]:
    """(columns, examples): the texts, to see which are empty; of lists a text that is so where any is."""
    return [[_together(row) if isinstance(row, list) else row for row in _columns.values(split, column)]
            for column in form.columns]


def queries_of(form: Form, split: Dataset) -> list[str]:
    """What is asked in a split, row by row; of a folder for search not the documents, which are rows too."""
    asked: list[str] = _columns.values(split, form.columns[0])
    if form.kind != "search":
        return asked
    _, roles, _ = relevant_in(split)
    return [text for text, role in zip(asked, roles, strict=True) if role == "query"]


def _together(texts: list[str]) -> str:
    return "; ".join(texts) if texts and all(one and one.strip() for one in texts) else ""


def read(
    form: Form, split: Dataset, kept: Sequence[int], *, training: bool, most: int, theirs: Sequence[str] = ()
) -> list[Asked]:
    """Queries with their candidates. `kept`: the rows that are read. `theirs`: the columns of what a teacher reads instead,
    each in the place of its student's.

    In training, a query is in parts of at most `most` candidates, rows of lists and triples are queries of their own, and
    what answers a query is a candidate, found or not. Else a query stands once, with all candidates of all of its rows.
    """
    each = _of_search(split, {*kept}, training=training) if form.kind == "search" else _of_rows(form, split, kept, theirs)
    found = [*each]
    if not training or form.kind == "pairs":
        found = _merged(found, are_unlabelled(split))
    return [part for one in found for part in one.parts(most)] if training else found


def _merged(found: Iterable[Asked], free: Any) -> list[Asked]:
    """Rows of one query in one; those that nobody has labelled by themselves."""
    merged: dict[tuple[str, bool], Asked] = {}
    ordered: dict[tuple[str, bool], list[Asked]] = {}
    for one in found:
        ordered.setdefault((one.key, bool(free[one.row])), []).append(one)
    for key, rows in ordered.items():
        merged[key] = rows[0] if len(rows) == 1 and len({*rows[0].names}) == len(rows[0].names) else _joined(rows)
    return [*merged.values()]


def _joined(rows: Sequence[Asked]) -> Asked:
    whole = replace(rows[0], rows=(), names=(), documents=(), grades=(), theirs=())
    for one in rows:
        whole = whole.with_more(one)
    return whole


def _of_rows(form: Form, split: Dataset, kept: Sequence[int], theirs: Sequence[str]) -> Iterator[Asked]:
    told = [_columns.values(split, column) for column in theirs]
    queries, *others = (_columns.values(split, column) for column in form.columns)
    said, free = _said(form, split) if form.score is not None else None, are_unlabelled(split)
    for row in kept:
        documents = _of(others, row)
        if free[row] or not form.is_judged:
            grades = [math.nan] * len(documents)
        else:
            grades = [1.0, *[0.0] * (len(documents) - 1)] if said is None else said[row]
        judged = {name: grade for name, grade in zip(documents, grades) if not math.isnan(grade)} if form.is_judged else None
        asked = tuple((told[0][row], one) for one in _of(told[1:], row)) if told else ()
        rows = (int(row),) * len(documents)
        yield Asked(queries[row], queries[row], rows, documents, documents, tuple(grades), judged, asked)


def _of(columns: Sequence[Sequence[Any]], row: int) -> tuple[str, ...]:
    """The candidates of a row: of a list, or of a column each."""
    first = columns[0][row]
    return tuple(first) if isinstance(first, list) else tuple(column[row] for column in columns)


def _of_search(split: Dataset, kept: set[int], *, training: bool) -> Iterator[Asked]:
    """By what the first search found; without one, what was judged."""
    ids, roles, relevant = relevant_in(split)
    texts = _columns.values(split, "text")
    found = _columns.values(split, CANDIDATES) if CANDIDATES in split.column_names else None
    known = {ids[row]: texts[row] for row in kept if roles[row] == "document"}
    for row in sorted(kept):
        if roles[row] != "query":
            continue
        grades = {name: float(grade) for name, grade in relevant[row].items()}
        names = [*grades] if found is None else list(found[row] or ())
        if training:
            names += [name for name, grade in grades.items() if grade > 0]
        names = [name for name in dict.fromkeys(names) if name in known]
        if names:
            yield Asked(ids[row], texts[row], (int(row),) * len(names), tuple(names), tuple(known[name] for name in names),
                        tuple(grades.get(name, 0.0) for name in names), grades)


def flat(asked: Sequence[Asked], *, theirs: bool = False) -> tuple[list[str], list[str]]:
    """Queries and documents of all pairs, a query's one after the other; `theirs`: as a teacher reads them."""
    if theirs:
        told = [pair for one in asked for pair in one.theirs]
        return [query for query, _ in told], [text for _, text in told]
    return [one.query for one in asked for _ in one.names], [text for one in asked for text in one.documents]
