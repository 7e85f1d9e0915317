"""What embedding models are asked: vectors of texts, and how they are judged: by scores of pairs, by what is found, by how
near they are to the teacher's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.exam import ForwardExam, array
from stilla.tasks.retrieval import ranking
from stilla.tasks.retrieval.forms import Form, Kinds, texts_of
from stilla.tasks.retrieval.references import Places, names_of
from stilla.tasks.shared.metrics import by_sums, regression
from stilla.views import Text, View

_SAME = 1e-6
"""How far from 1 a cosine of the same vector twice may be in float32."""


@dataclass(frozen=True)
class EmbeddingExam(ForwardExam):
    """An answer is (texts, width): a vector of each of the example's texts. Of a search it is in the end a ranking for every
    query.

    forms: by kind, of the splits that the task knows. dot: vectors are compared by their product, not by their angle. first:
    so many numbers at the beginning of vectors are measured by themselves too.
    """

    forms: Mapping[Kinds, Form]
    dot: bool = False
    first: tuple[int, ...] = ()

    units: ClassVar[str] = "queries"

    def outputs(self, outputs: Any) -> Tensor:
        """A vector of every text; of a teacher that reads pairs, its score of each."""
        if isinstance(outputs, Tensor):
            return outputs
        said: Tensor = outputs["sentence_embedding" if "sentence_embedding" in outputs else "logits"]
        return said

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> NDArray[Any]:
        keys = batch.keys_
        examples = len(said) if keys is None else len(keys)
        vectors: NDArray[Any] = array(said).reshape(examples, -1, said.shape[-1])
        return vectors

    def finished(self, answers: Answers) -> Answers:
        """Of a search: the queries alone, each with what is nearest to it; else as they are."""
        places: Any = answers.references
        if not isinstance(places, Places):
            return answers
        given = np.asarray(answers.given)
        found = self._found(given, places)
        if self.first:
            cut = zip(*(self._found(given[..., :size], places) for size in self.first))
            found = [{**whole, "first": dict(zip(self.first, parts))} for whole, parts in zip(found, cut)]
        asking = np.array([one.grades is not None for one in places])
        return Answers(answers.keys[asking], found, [one.grades for one in places if one.grades is not None])

    def _found(self, given: NDArray[Any], places: Places) -> list[ranking.Ranking]:
        """Of every query what is nearest to it."""
        asking = np.array([one.grades is not None for one in places])
        vectors = self.as_compared(given)
        documents: dict[str, NDArray[Any]] = {}
        for row, one in enumerate(places):
            if one.grades is None:
                documents[one.name] = vectors[row, 0]
            else:
                documents |= dict(zip(one.documents, vectors[row, 1:]))
        index = places.kept()  # some vectors stay whatever model asks
        if index is not None:
            documents = {name: self.as_compared(index[name]) for name in documents}
        queries, among = vectors[asking, 0], np.stack([*documents.values()])
        own = [one.name for one in places if one.grades is not None] if not asking.all() else None
        if not (np.isfinite(queries).all() and np.isfinite(among).all()):
            return [{"documents": [], "similarities": np.full(1, np.nan)}] * int(asking.sum())
        return ranking.rankings(queries, among, list(documents), own)

    def metrics(self) -> tuple[Metric, ...]:
        kinds: Sequence[Kinds] = [*self.forms] or ["search", "scored", "texts"]
        found: list[Metric] = []
        for kind in kinds:
            more = {"scored": self._of_scores, "texts": self._of_texts}.get(kind, self._of_rankings)()
            found += [one for one in more if one.name not in [known.name for known in found]]
        return tuple(found)

    def _of_rankings(self) -> tuple[Metric, ...]:
        whole = ranking.metrics()
        return (*whole, *(replace(whole[0], name=f"{whole[0].name}_first_{size}",
                                  statistics=functools.partial(_of_first, whole[0], size)) for size in self.first))

    def concerns(self, metric: Metric, answers: Answers) -> bool:
        if ranking.are_rankings(answers.given):
            return metric.name in [one.name for one in self._of_rankings()]
        scored = isinstance(answers.references, np.ndarray)
        return metric.name in ([one.name for one in self._of_scores()] if scored else ("teacher_cosine",))

    def decisions(self, answers: Answers) -> Decisions | None:
        """What is found first; right is what answers the query, whichever of several it is."""
        if not ranking.are_rankings(answers.given):
            return None
        return ranking.first_found(answers.given, [*answers.references])

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> Any:
        order = generator.permutation(len(answers))
        if not ranking.are_rankings(answers.given):
            given = np.asarray(answers.given)  # of pairs the first texts, beside the second ones of others
            return given[order] if given.shape[1] == 1 else np.concatenate([given[:, :1], given[order][:, 1:]], axis=1)
        return [answers.given[place] for place in order]

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        """A query with what each model finds first, and whether it answers it; other examples as their texts."""
        first = next(iter(answers.values()))
        key = int(first.keys[example])
        if not ranking.are_rankings(first.given):
            form = next((one for one in self.forms.values() if set(one.columns) <= set(split.column_names)), None)
            columns = form.columns if form is not None else ("text",)
            row = split.select_columns(list(columns)).with_format(None)[key]
            return Text(" | ".join(str(row[column]) for column in columns))
        question, documents = _of_search(split, self.forms.get("answered"))
        grades = first.references[example]
        return ranking.shown(question[key], documents, grades, {name: said.given[example] for name, said in answers.items()})

    # --- pairs and texts ---

    def as_compared(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """So that products are what vectors are compared by."""
        vectors = vectors.astype(np.float32)
        if self.dot:
            return vectors
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def _alike(self, given: Any) -> NDArray[np.float64]:
        """(examples,) how near a pair's texts are. Cosines that float32 cannot tell from 1 are 1, as those of the same text
        twice: ranked by what rounding left of it, such pairs would have an order."""
        vectors = self.as_compared(np.asarray(given)).astype(np.float64)
        near: NDArray[np.float64] = (vectors[:, 0] * vectors[:, 1]).sum(-1)
        return near if self.dot else np.where(np.abs(near) > 1 - _SAME, np.sign(near), near)

    def _of_scores(self) -> tuple[Metric, ...]:
        pearson, spearman, _ = regression()
        whole = [replace(one, statistics=functools.partial(self._scored, one, None)) for one in (spearman, pearson)]
        return (*whole, *(replace(spearman, name=f"{spearman.name}_first_{size}",
                                  statistics=functools.partial(self._scored, spearman, size)) for size in self.first))

    def _scored(self, metric: Metric, size: int | None, given: Any, references: Any) -> Any:
        scored = isinstance(references, np.ndarray) and references.ndim == 1 and np.asarray(given).ndim == 3
        if not scored:
            return np.full((len(given), 6 if metric.from_sums else 2), np.nan)
        return metric.statistics(self._alike(np.asarray(given)[..., :size]), references)

    def _of_texts(self) -> tuple[Metric, ...]:
        return (by_sums("teacher_cosine", self._cosines, _mean, bounded=False, limits=(-1.0, 1.0)),)

    def _cosines(self, given: Any, references: Any) -> NDArray[np.float64]:
        """How near each vector is to the teacher's of the same text."""
        told = None if ranking.are_rankings(given) else np.asarray(references)
        if told is None or told.ndim != 3 or told.shape != np.asarray(given).shape:
            return np.zeros((len(given), 2))
        ours, theirs = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (np.asarray(given, np.float64), told))
        return np.stack([(ours * theirs).sum(-1).mean(-1), np.ones(len(ours))], axis=1)


def _of_first(metric: Metric, size: int, given: Any, references: Any) -> Any:
    """Of rankings by the first numbers of vectors."""
    rankings = ranking.are_rankings(given)
    return metric.statistics([one["first"][size] for one in given] if rankings else given, references)


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


@functools.lru_cache(maxsize=2)
def _of_search(split: Dataset, answered: Form | None) -> tuple[Mapping[int, str], Mapping[str, str]]:
    """Questions by their row, and documents by their name."""
    if "relevant" in split.column_names:
        rows = split.select_columns(["id", "role", "text"]).with_format(None)
        return ({number: row["text"] for number, row in enumerate(rows) if row["role"] == "query"},
                {row["id"]: row["text"] for row in rows if row["role"] == "document"})
    assert answered is not None  # nothing else is searched in
    questions, *others = texts_of(answered, split)
    return dict(enumerate(questions)), {name: text for text, name in names_of(others).items()}
