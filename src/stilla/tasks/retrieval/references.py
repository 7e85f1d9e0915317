"""What the vectors of examples are compared with, by what a split is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.tasks.answers import NO_ANSWER, Given
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval import forms
from stilla.tasks.retrieval.forms import Form
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.naming import relevant_in
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.told import Told

OTHER_WIDTH = ("data.documents: teacher: the student's vectors have {} numbers, and the teacher's, among which they "
               "are searched, {}; "
               "expected as many")
NOT_DRAWN = ("data.documents: teacher: a query is searched among the teacher's vectors, and no objective draws the "
             "student's into "
             "their space (others compare what is within a space of its own). Add `embedding`")
LOST = ("queries are searched among the teacher's vectors (data.documents: teacher), and labels alone lead a student into "
        "a space of its own, where none of them lies")
NOTHING_BESIDE = ("`labels` tells what answers a query from what stands beside it, and nothing does. Use `contrastive`, for "
                  "which the other answers of a step do, or have some found (data.negatives)")
NOTHING_SEARCHED = ("data.documents: got 'teacher', and no split that is measured has queries and documents; give a "
                    "folder for "
                    "search, or queries with what answers them, as validation or test data")


@dataclass(frozen=True)
class Place:
    """What an example is in a search. `name`: of the query, or the document. `documents`: names of what stands beside a
    query. `grades`: of what answers the query, by name; None of a document."""

    name: str
    documents: tuple[str, ...] = ()
    grades: Mapping[str, int] | None = None


class Places(Sequence[Any]):
    """Those of a split. `indexed`: the vectors that documents have whatever model is asked, in the order of `names`."""

    def __init__(self, places: Sequence[Place], names: Sequence[str] = (), indexed: Told | None = None) -> None:
        self._places = places
        self._names = names
        self._indexed = indexed

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        return self._places[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def kept(self) -> Mapping[str, NDArray[np.float64]] | None:
        """By name of the document; None where each model's own are searched."""
        return None if self._indexed is None else dict(zip(self._names, self._indexed.vectors[:, 0]))


def references(
    section: EmbeddingData, form: Form, split: Dataset, texts: Sequence[str], kinds: Sequence[Kind | None],
    teacher: Loaded | None,
) -> Given | None:
    """`texts`, `kinds`: of all examples, one text after the other. None where the teacher alone could say it, and is not
    there."""
    if form.kind == "scored":
        return forms.scores_of(section, form, "validation", split)
    if form.kind == "texts":
        return None if teacher is None else Told(teacher, texts, kinds, section)
    places, names = _searched(split) if form.kind == "search" else _answered(form, split)
    if section.documents == "student" or teacher is None:
        return Places(places)
    return Places(places, [*names], Told(teacher, [*names.values()], ["document"] * len(names), section))


def labels_of(section: EmbeddingData, form: Form, split: Dataset) -> NDArray[Any] | None:
    """Of pairs their scores; of several candidates the first."""
    if form.score is not None:
        scores = forms.scores_of(section, form, "train", split)
        return np.where(are_unlabelled(split), np.nan, scores).astype(np.float32)
    if form.classes < 2:
        return None
    return np.where(are_unlabelled(split), NO_ANSWER, 0).astype(np.int64)


def _searched(split: Dataset) -> tuple[list[Place], dict[str, str]]:
    ids, roles, relevant = relevant_in(split)
    texts = split.with_format(None)["text"][:]
    places = [Place(name, grades=grades if role == "query" else None) for name, role, grades in zip(ids, roles, relevant)]
    return places, {name: text for name, role, text in zip(ids, roles, texts) if role == "document"}


def _answered(form: Form, split: Dataset) -> tuple[list[Place], dict[str, str]]:
    queries, *columns = forms.texts_of(form, split)
    names = names_of(columns)
    grades: dict[str, dict[str, int]] = {}  # all that the split has as answers to a query, in whatever row
    for query, answer in zip(queries, columns[0]):
        grades.setdefault(query, {})[names[answer]] = 1
    places = [Place(str(number), tuple(names[text] for text in others), grades[query])
              for number, (query, *others) in enumerate(zip(queries, *columns))]
    return places, {name: text for text, name in names.items()}


def names_of(columns: Sequence[Sequence[str]]) -> dict[str, str]:
    """A name for each different text of some columns."""
    return {text: str(number) for number, text in enumerate(dict.fromkeys(one for column in columns for one in column))}
