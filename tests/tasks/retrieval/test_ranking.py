"""Lists of documents and how good they are, against trec_eval."""

from __future__ import annotations

import numpy as np
import pytest

from stilla.tasks.retrieval import ranking

METRICS = {"ndcg_at_10": "ndcg_cut_10", "recall_at_10": "recall_10", "recall_at_100": "recall_100"}


def drawn(generator: np.random.Generator) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Similarities of which many are equal, and judgements of which some are all zero."""
    names = [f"d{number}" for number in range(40)]
    near = {f"q{query}": {name: float(generator.integers(0, 6)) / 4 for name in names} for query in range(4)}
    grades = {f"q{query}": {str(name): int(generator.integers(0, 4)) * (query > 0)
                            for name in generator.choice(names, 12, replace=False)} for query in range(4)}
    return near, grades


def ranked(near: dict[str, float]) -> ranking.Ranking:
    (found,) = ranking.rankings(np.ones((1, 1), np.float32), np.array([*near.values()], np.float32)[:, None], [*near])
    return found


def test_a_hundred_rankings_with_ties_are_measured_as_trec_eval_does() -> None:
    trec = pytest.importorskip("pytrec_eval")
    generator = np.random.default_rng(0)
    for _ in range(25):
        near, grades = drawn(generator)
        theirs = trec.RelevanceEvaluator(grades, {"ndcg_cut.10", "recall.10,100", "recip_rank"}).evaluate(near)
        for query, found in ((query, ranked(one)) for query, one in near.items()):
            for metric in ranking.metrics():
                ours = metric.compute([found], [grades[query]])
                if metric.name in METRICS:
                    assert ours == pytest.approx(theirs[query][METRICS[metric.name]], abs=1e-9), metric.name
                else:
                    first = theirs[query]["recip_rank"]
                    assert ours == pytest.approx(first if first >= 0.1 else 0.0, abs=1e-9)


def test_every_document_that_is_as_near_as_the_last_may_stand_in_the_list() -> None:
    near = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0}
    vectors = np.array([*near.values()], np.float32)[:, None]
    (found,) = ranking.rankings(np.ones((1, 1), np.float32), vectors, [*near], deepest=2)
    assert found["documents"] == ["d", "c"]


def test_a_document_of_the_querys_own_name_is_left_out() -> None:
    documents = np.eye(3, dtype=np.float32)
    (found,) = ranking.rankings(documents[:1], documents, ["a", "b", "c"], ["a"])
    assert found["documents"] == ["c", "b"]


def test_nothing_relevant_counts_as_nothing_found() -> None:
    found = ranked({"a": 1.0, "b": 0.0})
    assert all(metric.compute([found], [{"a": 0}]) == 0 for metric in ranking.metrics())


def test_what_is_no_ranking_is_not_measured() -> None:
    assert all(np.isnan(metric.compute(np.zeros((3, 1, 4)), [0, 0, 0])) for metric in ranking.metrics())
