"""What does not answer a query, found by the teacher or another model of vectors: the nearest documents that are no answers
(`data.negatives`).

A document as near as the answer may answer too, though nobody has marked it. Those above a share of the answer's similarity
are passed over (TopK-PercPos of NV-Retriever: Moreira et al. 2024, arXiv:2407.15831, sec. 3.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from datasets import Dataset
from jaxtyping import Float32
from numpy.typing import NDArray

from stilla.errors import DataError, counted
from stilla.objectives.base import LogitObjective, StepTableObjective, Term
from stilla.recipe import ObjectiveSpec
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.forms import Form, texts_of
from stilla.tasks.retrieval.model import Shape
from stilla.tasks.retrieval.naming import relevant_in
from stilla.tasks.retrieval.ranking import largest
from stilla.tasks.retrieval.sections import EmbeddingData, Negatives

WHERE = "data.negatives"
TEACHERS_COLUMNS = (f"{WHERE}: the teacher reads other columns than the student (teacher.data), in which nobody knows what a "
                    "document is called that was found for another query. Leave one out")
_OF_A_FOLDER = ("query", "positive")


@dataclass(frozen=True)
class Questions:
    """A query with an answer a row. `queries`, `documents`: different texts. `asked`, `answers`: of every row the place of
    its query, and of its answer. `others`: of every query documents that it must not get: all of its answers, what the data
    give as no answer already, the query's own text. `rows`: where rows stand in the data; none of a folder for search."""

    queries: list[str]
    documents: list[str]
    asked: NDArray[np.int64]
    answers: NDArray[np.int64]
    others: list[frozenset[int]]
    rows: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def texts(self) -> list[str]:
        return [*self.queries, *self.documents]


def problems(section: EmbeddingData, form: Form, split: Dataset) -> list[str]:
    """Why nothing can be found for the queries of these training data, in words."""
    if section.negatives is None:
        return []
    if form.kind in ("texts", "scored") and "relevant" not in split.column_names:
        what = "texts by themselves" if form.kind == "texts" else "pairs with a score"
        return [f"{WHERE}: is for queries with what answers them, and the training data are {what}; expected two columns as "
                "query and positive, or a folder for search. Leave it out"]
    taken = [name for name in _columns_for(section.negatives) if name in split.column_names]
    return [f"{WHERE}: what is found stands in columns like {taken[0]!r}, and the training data have one of that name; "
            "rename it"] if taken else []


def learnt_by(mining: Mining | None) -> tuple[ObjectiveSpec, ...]:
    """What students learn of it where a recipe names nothing: how near the teacher finds each candidate."""
    return () if mining is None else (ObjectiveSpec(kind="logits", temperature=1.0),)


def unlearnt(mining: Mining | None, terms: Sequence[Term]) -> list[str]:
    """Whether all candidates are found for nothing, in words."""
    if mining is None or not terms or any(isinstance(term.objective, LogitObjective | StepTableObjective) for term in terms):
        return []
    return [f"{WHERE}: no objective compares a query's candidates, so that what is found would be texts like others. Add "
            "logits, margins, listwise, labels or contrastive, or name no objectives"]


def _of_columns(form: Form, split: Dataset) -> Questions:
    texts = texts_of(form, split)
    rows = [row for row, one in enumerate(zip(*texts)) if all(text and text.strip() for text in one)]
    queries = {text: place for place, text in enumerate(dict.fromkeys(texts[0][row] for row in rows))}
    documents = {text: place for place, text in enumerate(dict.fromkeys(texts[1][row] for row in rows))}
    others = [{documents[query]} if query in documents else set[int]() for query in queries]
    for row in rows:
        there = [column[row] for column in texts[1:]]
        others[queries[texts[0][row]]].update(documents[text] for text in there if text in documents)
    return Questions([*queries], [*documents], np.array([queries[texts[0][row]] for row in rows], np.int64),
                     np.array([documents[texts[1][row]] for row in rows], np.int64), [*map(frozenset, others)],
                     np.array(rows, np.int64))


def _of_folder(split: Dataset) -> Questions:
    ids, roles, relevant = relevant_in(split)
    texts = dict(zip(zip(roles, ids), split.with_format(None)["text"][:]))
    said = {name: text for (role, name), text in texts.items() if role == "document" and text.strip()}
    documents = {text: place for place, text in enumerate(dict.fromkeys(said.values()))}
    queries: dict[str, int] = {}
    others, pairs = list[set[int]](), dict[tuple[int, int], None]()
    for name, role, grades in zip(ids, roles, relevant):
        text = texts[role, name]
        right = [documents[said[one]] for one, grade in grades.items() if grade > 0 and one in said]
        if role != "query" or not text.strip() or not right:
            continue
        place = queries.setdefault(text, len(queries))
        if place == len(others):
            others.append({documents[text]} if text in documents else set())
        # a document of the query's own id is the query: searches leave it out too
        others[place].update([*right, *([documents[said[name]]] if name in said else [])])
        pairs |= dict.fromkeys((place, one) for one in right)
    return Questions([*queries], [*documents], np.array([query for query, _ in pairs], np.int64),
                     np.array([answer for _, answer in pairs], np.int64), [*map(frozenset, others)], None)


def nearest(
    queries: Float32[NDArray[Any], "rows width"], documents: Float32[NDArray[Any], "documents width"],
    answers: NDArray[np.int64], others: Sequence[Collection[int]], section: Negatives,
) -> list[NDArray[np.int64]]:
    """Of every row the places of the nearest documents, `section.mined` or as many as are left.

    Left are those that are none of its `others` and not nearer than s - (1 - below) |s|, s being how near its answer is: the
    share `below` of s where s is positive. Of these the first `after` are passed over. Equally near ones keep their order.
    """
    found = []
    near = queries @ documents.T
    for line, answer, never in zip(near, answers, others, strict=True):
        bar = float(line[answer])
        line[line > bar - (1 - section.below) * abs(bar)] = -np.inf
        line[[answer, *never]] = -np.inf
        places = largest(line, section.after + section.mined)
        found.append(places[np.isfinite(line[places])][section.after :])
    return found


@dataclass(frozen=True)
class Mining:
    """How it is looked for in the training data of a task. `form`: of the data before. `as_compared`: vectors -> such that
    products are what they are compared by. `shape`: of the teacher's vectors, where it is known. `max_length`: of a text,
    in tokens."""

    section: Negatives
    form: Form
    as_compared: Callable[[NDArray[Any]], NDArray[np.float32]]
    shape: Shape | None = None
    max_length: int | None = None

    def questions(self, split: Dataset) -> Questions:
        """What is asked in training data, and among what is searched: what answers, or the whole corpus of a folder.

        Raises:
            DataError: nothing answers any query, or there are too few documents, whatever a teacher says of them.
        """
        found = _of_folder(split) if "relevant" in split.column_names else _of_columns(self.form, split)
        if not len(found):
            raise DataError(f"{WHERE}: the training data say of no query what answers it")
        wanted, there = self.section, len(found.documents)
        if there <= wanted.after + wanted.mined:
            raise DataError(f"{WHERE}: got mined: {wanted.mined} after {wanted.after}, and the training data have "
                            f"{counted(there, 'different document')}, of which one at least answers the query; expected "
                            "fewer")
        return found

    @property
    def learnt(self) -> Form:
        """Of training data with what was found in them."""
        base = self.form.columns if self.form.kind == "answered" else _OF_A_FOLDER
        return Form("answered", (*base, *_columns_for(self.section)))

    def with_found(self, split: Dataset, questions: Questions, found: Mapping[int, Sequence[int]]) -> Dataset:
        """The rows for which something was found, with a column for each document. `found`: by row of the questions places
        of documents."""
        if questions.rows is None:
            rows = Dataset.from_dict({
                "query": [questions.queries[questions.asked[row]] for row in found],
                "positive": [questions.documents[questions.answers[row]] for row in found]})
        else:
            rows = split.select([int(questions.rows[row]) for row in found])
        for column, places in zip(_columns_for(self.section), zip(*found.values()), strict=True):
            rows = rows.add_column(column, [questions.documents[place] for place in places])
        return rows

    def as_if_found(self, split: Dataset) -> tuple[Questions, Dataset]:
        """Any documents in the place of those that a teacher would find: for whoever looks at what a run would be."""
        questions = self.questions(split)
        steps, there = range(1, self.section.mined + 1), len(questions.documents)
        found = {row: [(answer + step) % there for step in steps] for row, answer in enumerate(questions.answers.tolist())}
        return questions, self.with_found(split, questions, found)


class Mines(ABC):
    """A task in which may be found what does not answer its queries, by its teacher or by another model."""

    @property
    @abstractmethod
    def mining(self) -> Mining | None:
        """How, if it does."""

    @abstractmethod
    def found_by(self, teacher: Loaded) -> tuple[Mining, Loaded]:
        """How, and who looks: the teacher, or whom the recipe names.

        Raises:
            CompatibilityError: that is no model of vectors.
        """

    @abstractmethod
    def with_found(self, form: Form) -> Self:
        """The same task, whose training data are now of this form."""


def _columns_for(section: Negatives) -> tuple[str, ...]:
    return tuple(f"mined_{number}" for number in range(1, section.mined + 1))
