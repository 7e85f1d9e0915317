"""Documents by how near they are to a query, how good such a list is by the rules of trec_eval, and what is shown of it.

Documents of equal similarity are in falling order of their ids. nDCG's gain is the grade itself, an ideal list is made of all
that was judged; a document of a grade above 0 is relevant. A query to which nothing is relevant counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.tasks.answers import Decisions, Given, Metric
from stilla.tasks.shared.metrics import by_sums
from stilla.views import Listed
from stilla.views import Ranking as Shown

DEEPEST = 100
"""Documents of a list that are kept."""
_SHOWN = 5
"""Documents of a list that a person is shown."""
_AT_ONCE = 2**24
"""Similarities held at a time: 64 MB."""

Ranking = Mapping[str, Any]
"""`documents`: ids, the nearest first. `similarities`: as many."""


def rankings(
    queries: NDArray[np.float32], documents: NDArray[np.float32], names: Sequence[str], own: Sequence[str] | None = None,
    deepest: int = DEEPEST,
) -> list[Ranking]:
    """Of every query the nearest documents, by the product of vectors. `own`: the queries' ids; a document of the query's own
    id is left out (a text that asks for what is like it)."""
    order = np.argsort(np.array(names, object), kind="stable")[::-1]
    sorted_names, sorted_documents = [names[place] for place in order], documents[order]
    place_of = {name: place for place, name in enumerate(sorted_names)}
    found: list[Ranking] = []
    rows = max(1, _AT_ONCE // max(1, len(documents)))
    for start in range(0, len(queries), rows):
        near = queries[start : start + rows] @ sorted_documents.T
        for offset, line in enumerate(near):
            itself = None if own is None else place_of.get(own[start + offset])
            best = largest(line, deepest + (itself is not None))
            best = best[best != itself][:deepest] if itself is not None else best
            found.append({"documents": [sorted_names[place] for place in best], "similarities": line[best]})
    return found


def largest(line: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of the largest, and of equal ones the first."""
    places = np.arange(len(line))
    if count < len(line):
        places = np.flatnonzero(line >= np.partition(line, -count)[-count])
    best: NDArray[np.int64] = places[np.argsort(-line[places], kind="stable")][:count]
    return best


def ordered(names: Sequence[str], scores: NDArray[Any]) -> Ranking:
    """One query's candidates, the best first; in whatever order they were given."""
    falling = np.argsort(np.array(names, object), kind="stable")[::-1]
    best = falling[np.argsort(-scores[falling], kind="stable")]
    return {"documents": [names[place] for place in best], "similarities": scores[best]}


Grades = Mapping[str, float]


def ndcg(found: Ranking, grades: Grades, k: int) -> float:
    """Σ grade / log2(rank + 1) over the first k, as a share of the best possible."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.array([max(0, grades.get(name, 0)) for name in found["documents"][:k]], float)
    ideal = np.sort([max(0, one) for one in grades.values()])[::-1][:k]
    best = float(ideal @ discounts[: len(ideal)]) if len(ideal) else 0.0
    return float(gains @ discounts[: len(gains)]) / best if best else 0.0


def reciprocal_rank(found: Ranking, grades: Grades, k: int) -> float:
    """1 / rank of the first relevant one among the first k."""
    return next((1 / rank for rank, name in enumerate(found["documents"][:k], 1) if grades.get(name, 0) > 0), 0.0)


def recall(found: Ranking, grades: Grades, k: int) -> float:
    """The share of the relevant ones among the first k."""
    relevant = {name for name, grade in grades.items() if grade > 0}
    return len(relevant & {*found["documents"][:k]}) / len(relevant) if relevant else 0.0


def are_rankings(given: Given) -> bool:
    return not isinstance(given, np.ndarray) and len(given) > 0 and isinstance(given[0], Mapping)


def metrics() -> tuple[Metric, ...]:
    """Of rankings; not defined of other answers."""
    kinds = (("ndcg_at_10", ndcg, 10), ("mrr_at_10", reciprocal_rank, 10), ("recall_at_10", recall, 10),
             ("recall_at_100", recall, 100))
    return tuple(by_sums(name, _statistics(measure, k), _mean) for name, measure, k in kinds)


def _statistics(measure: Any, k: int) -> Any:
    def statistics(given: Given, references: Sequence[Any]) -> NDArray[np.float64]:
        if not are_rankings(given):
            return np.zeros((len(given), 2))
        return np.array([(measure(one, grades, k), 1.0) for one, grades in zip(given, references, strict=True)])

    return statistics


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def first_found(given: Given, grades: Sequence[Any]) -> Decisions:
    """What is found first; right is what answers the query, whichever of several it is. `grades`: by document, a query
    each."""
    first = [one["documents"][0] if one["documents"] else "" for one in given]
    right = [name if known.get(name, 0) > 0 else max(known, key=known.__getitem__, default="")
             for name, known in zip(first, grades, strict=True)]
    return Decisions.of_examples(np.array(first), np.array(right))


def shown(question: str, titles: Mapping[str, str], grades: Grades, found: Mapping[str, Ranking]) -> Shown:
    """A query with what each subject finds first, and whether it answers it. `titles`: texts of documents by name."""
    return Shown(question, {subject: tuple(
        Listed(titles.get(name, name), grades.get(name, 0) > 0, round(float(near), 4))
        for name, near in zip(one["documents"][:_SHOWN], one["similarities"])) for subject, one in found.items()})
