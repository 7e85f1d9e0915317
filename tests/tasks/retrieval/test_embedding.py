"""Vectors of texts: from files to signals, what is measured of them, and every mistake in the data, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr

from stilla import data
from stilla.cache import Store
from stilla.data import sources
from stilla.data.unlabelled import MARK
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine, is_weak
from stilla.objectives import Contrastive, Labels, Similarities
from stilla.objectives.base import Term
from stilla.recipe import Lora, ModelSource, StudentSpec
from stilla.signals import NOBODYS, UNSAID, Batch, Dense, Side, Signals
from stilla.stages import narrowing
from stilla.students import by_layers
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.forward import listen
from stilla.tasks.retrieval import ranking
from stilla.tasks.retrieval.embedding import Embedding
from stilla.tasks.retrieval.forms import form_of, scores_of
from stilla.tasks.retrieval.model import Shape
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.told import embed
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher
from tests.tasks.retrieval.setting import folder, lines, loaded, scored, search, sentences, texts, triples


def bound(splits: dict[str, str], **said: Any) -> tuple[Embedding, dict[str, Dataset]]:
    section = EmbeddingData.model_validate({**splits, **said})
    found = data.load(section, seed=0)
    return Embedding.understand(section, found), found


@pytest.fixture
def teacher(tmp_path: Path) -> Loaded:
    return loaded(folder(tmp_path / "teacher"))


def unit(vectors: Any) -> Any:
    """Of length 1, in the precision in which they are compared."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def said(model: torch.nn.Module, task: Embedding, batch: Batch) -> Signals:
    with torch.no_grad():
        return listen(model, task, batch, Side.STUDENT)


def test_of_plain_text_every_line_is_a_text_unless_the_recipe_says_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("a cat sat\nit slept\n\na dog ran\n", encoding="utf-8")
    places = dict.fromkeys(("train", "validation", "test"), str(path))
    section = EmbeddingData.model_validate(places)
    assert data.load(section, seed=0)["train"]["text"][:] == ["a cat sat", "it slept", "a dog ran"]
    section = EmbeddingData.model_validate({**places, "document": "paragraph"})
    assert data.load(section, seed=0)["train"]["text"][:] == ["a cat sat\nit slept", "a dog ran"]
    assert section.unlabelled_unit == "paragraph"


def test_scores_of_a_table_of_texts_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,score\na cat,the cat,0.5\na dog,the cat,\n", encoding="utf-8")
    section = EmbeddingData(train=str(path))
    split = sources.read(str(path))["train"]
    form = form_of(section, split)
    assert (form.kind, form.score) == ("scored", "score")
    assert scores_of(section, form, "train", split)[0] == 0.5


def test_texts_by_themselves_have_vectors_and_no_rows(tmp_path: Path, teacher: Loaded) -> None:
    file = texts(tmp_path / "t.jsonl", 12)
    task, splits = bound({"train": file, "validation": file})
    task = task.adapted_to(teacher)
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    signals = said(teacher.model, task, batch)
    assert signals.logits is None
    assert task.row_classes() == 0
    np.testing.assert_allclose(signals.embeddings["text"], embed(teacher, splits["train"]["text"], [None] * 12), atol=1e-6)
    assert task.counts(batch)["examples"] == 12
    assert not task.has_labels


@pytest.mark.slow
def test_pairs_have_a_cosine_and_a_score(tmp_path: Path, teacher: Loaded) -> None:
    file = scored(tmp_path / "s.jsonl", 10)
    task, splits = bound({"train": file, "validation": file}, score_range=[0, 5])
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    signals = said(teacher.model, task, batch)
    a, b = (embed(teacher, splits["train"][name], [None] * 10) for name in ("sentence1", "sentence2"))
    assert isinstance(signals.logits, Dense)
    np.testing.assert_allclose(signals.logits.logits[:, 0], (a * b).sum(-1), atol=1e-6)
    np.testing.assert_allclose(signals.labels, np.array(splits["train"]["score"]) / 5, atol=1e-6)
    tokens = int(task.mask(batch, Side.STUDENT).sum())
    assert task.counts(batch) == {"rows": 10, "labelled": 10, "examples": 20, "tokens": tokens}


def test_candidates_are_told_apart_and_the_first_answers(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher", prompts={"query": "the ", "document": "a new "}))
    file = triples(tmp_path / "t.jsonl", 6)
    task, splits = bound({"train": file, "validation": file}, scale=7.0)
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    signals = said(teacher.model, task, batch)
    kinds: Any = {"query": "query", "positive": "document", "negative": "document"}
    q, p, n = (embed(teacher, splits["train"][name], [kind] * 6) for name, kind in kinds.items())
    assert isinstance(signals.logits, Dense)
    np.testing.assert_allclose(signals.logits.logits, 7 * np.stack([(q * p).sum(-1), (q * n).sum(-1)], -1), atol=1e-5)
    assert signals.labels is not None
    assert signals.labels.tolist() == [0] * 6
    assert list(signals.embeddings) == ["query", "positive", "negative"]


def test_answers_of_other_queries_are_wrong_unless_a_row_says_otherwise(tmp_path: Path) -> None:
    """The second row's query is what answers the fourth; the third asks as the first does; nobody has labelled the last."""
    rows = [("the cat", "sits"), ("a dog", "barks"), ("the cat", "sleeps"), ("who", "a dog"), ("what", "a bird")]
    table = Dataset.from_dict({"query": [one for one, _ in rows], "positive": [one for _, one in rows],
                               "negative": ["a stone"] * 5, MARK: [False] * 4 + [True]})
    task = Embedding.understand(EmbeddingData(train="pairs.jsonl"), {"train": table})
    made = loaded(folder(tmp_path / "teacher"))
    signals = said(made.model, task, whole(task.prepare(table, made.processor, None, training=True)))
    pairs = signals.pairs
    assert pairs is not None
    assert pairs.alike
    assert pairs.angle
    assert pairs.scale == 20
    assert pairs.first[0] == pairs.first[2]
    assert pairs.first[1] == pairs.second[3]
    assert len(set(pairs.second[5:].tolist())) == 1
    assert pairs.belongs_to.tolist() == [*pairs.first[:4].tolist(), UNSAID, *[NOBODYS] * 4, UNSAID]
    assert [len(one) for one in signals.embeddings.values()] == [5, 5, 5]
    assert pairs.answers is not None
    both = {int(pairs.second[0]), int(pairs.second[2])}
    assert [set(row.tolist()) - {UNSAID} for row in pairs.answers] == [
        both, {int(pairs.second[1])}, both, {int(pairs.second[3])}, set()]
    assert task.labels_by().kind == "contrastive"
    assert [one.kind for one in task.learns_by()] == ["embedding", "contrastive"]


def test_units_matter_by_a_querys_own_candidates_where_it_has_some(tmp_path: Path) -> None:
    rows = [{"query": "a cat", "positive": "it sleeps", "negative": "a stone"}] * 3
    several, _ = bound({"train": lines(tmp_path / "several.jsonl", rows)})
    assert narrowing.problems(several) == []
    alone, _ = bound({"train": lines(tmp_path / "alone.jsonl", [{**row, "negative": None} for row in rows])},
                     text=("query", "positive"))
    assert "seen of one example at a time, and `contrastive`" in narrowing.problems(alone)[0]


def test_labels_need_something_beside_what_answers(tmp_path: Path) -> None:
    pairs = [{"query": "a cat", "positive": "it sleeps"}, {"query": "a dog", "positive": "it barks"}]
    task, _ = bound({"train": lines(tmp_path / "t.jsonl", pairs)})
    assert task.has_labels
    assert "`labels` tells what answers a query from what stands beside it" in task.idle([Term(Labels())])[0]
    assert not task.idle([Term(Contrastive())])


@pytest.mark.slow
def test_a_split_is_measured_as_what_it_is(tmp_path: Path, teacher: Loaded) -> None:
    task, splits = bound({"train": texts(tmp_path / "t.jsonl"), "validation": scored(tmp_path / "s.jsonl"),
                          "test": search(tmp_path / "search")}, score_range=[0, 5])
    task = task.adapted_to(teacher)
    assert [metric.name for metric in task.exam().metrics()] == [
        "spearman", "pearson", "ndcg_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"]
    prepared = task.prepare(splits["validation"], teacher.processor, None, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher.model)}, prepared, batch_size=5)["teacher"]
    a, b = (embed(teacher, splits["validation"][name], [None] * 24) for name in ("sentence1", "sentence2"))
    same = np.array(splits["validation"]["sentence1"]) == np.array(splits["validation"]["sentence2"])
    near, scores = np.where(same, 1.0, (a * b).sum(-1)), np.array(splits["validation"]["score"])
    values = {metric.name: metric.compute(answers.given, answers.references) for metric in task.exam().metrics()}
    assert values["spearman"] == pytest.approx(spearmanr(near, scores).statistic, abs=1e-9)
    assert values["pearson"] == pytest.approx(pearsonr(near, scores).statistic, abs=1e-6)
    concerned = [metric.name for metric in task.exam().metrics() if task.exam().concerns(metric, answers)]
    assert concerned == ["spearman", "pearson"]


def test_pairs_of_the_same_text_are_equally_near() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(12, 32)).astype(np.float32)
    pairs = np.stack([one, one * np.float32(1 + 1e-7)], 1)  # give or take what float32 leaves
    pairs[:4, 1] = rng.normal(size=(4, 32))
    scores = np.array([0.1, 0.3, 0.2, 0.4, *[1.0] * 8])
    exam = Embedding(shape=Shape("mean", True)).exam()
    spearman = next(metric for metric in exam.metrics() if metric.name == "spearman")
    exact = np.where(np.arange(12) < 4, (pairs[:, 0] * pairs[:, 1]).sum(-1) / np.linalg.norm(pairs, axis=-1).prod(-1), 1.0)
    assert spearman.compute(pairs, scores) == pytest.approx(spearmanr(exact, scores).statistic, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_search_finds_what_trec_eval_finds(tmp_path: Path, similarity: str) -> None:
    trec = pytest.importorskip("pytrec_eval")
    teacher = loaded(folder(tmp_path / "teacher", normalised=False, similarity=similarity))
    path = _with_training(search(tmp_path / "search"))
    task, splits = bound({"train": path})
    task, split = task.adapted_to(teacher), splits["test"]
    prepared = task.prepare(split, teacher.processor, None, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher.model)}, prepared, batch_size=7)["teacher"]
    vectors = embed(teacher, split["text"], [None] * len(split)).astype(np.float32)
    if similarity == "cosine":
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    near = vectors[:9] @ vectors[9:].T
    run = {split["id"][q]: dict(zip(split["id"][9:], map(float, line))) for q, line in enumerate(near)}
    grades = {split["id"][q]: {one["id"]: one["grade"] for one in split["relevant"][q]} for q in range(9)}
    theirs = trec.RelevanceEvaluator(grades, {"ndcg_cut.10", "recall.10"}).evaluate(run)
    for ours, name in (("ndcg_at_10", "ndcg_cut_10"), ("recall_at_10", "recall_10")):
        (metric,) = [one for one in task.exam().metrics() if one.name == ours]
        assert metric.compute(answers.given, answers.references) == pytest.approx(
            np.mean([one[name] for one in theirs.values()]), abs=1e-6)
    assert answers.keys.tolist() == list(range(9))


@pytest.mark.slow
def test_each_query_is_looked_for_among_the_answers_to_all(tmp_path: Path, teacher: Loaded) -> None:
    said_twice = sentences(6)
    file = lines(tmp_path / "p.jsonl", [{"query": one, "positive": one} for one in said_twice])
    task, splits = bound({"train": file, "validation": file})
    prepared = task.adapted_to(teacher).prepare(splits["validation"], teacher.processor, None, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher.model)}, prepared)["teacher"]
    assert {metric.name: metric.compute(answers.given, answers.references) for metric in task.exam().metrics()} == {
        "ndcg_at_10": 1, "mrr_at_10": 1, "recall_at_10": 1, "recall_at_100": 1}
    decisions = task.exam().decisions(answers)
    assert decisions is not None
    assert decisions.right().all()
    assert not is_weak(task.exam(), answers)


@pytest.mark.slow
def test_texts_by_themselves_are_held_against_the_teachers_vectors(tmp_path: Path, teacher: Loaded) -> None:
    file = texts(tmp_path / "t.jsonl", 20)
    task, splits = bound({"train": file, "validation": file})
    task = task.adapted_to(teacher)
    student = by_layers(teacher.model, 2).model
    prepared = task.prepare(splits["validation"], teacher.processor, None, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher.model), "student": Asked(student)}, prepared)
    (metric,) = task.exam().metrics()
    assert metric.compute(answers["teacher"].given, answers["teacher"].references) == pytest.approx(1, abs=1e-6)
    ours, theirs = (embed(Loaded(one, teacher.processor, ""), splits["validation"]["text"], [None] * 20)
                    for one in (student, teacher.model))
    found = metric.compute(answers["student"].given, answers["student"].references)
    assert found == pytest.approx((ours * theirs).sum(-1).mean(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "triples"])
def test_a_cache_gives_the_teachers_vectors_back(tmp_path: Path, teacher: Loaded, kind: str) -> None:
    file = texts(tmp_path / "t.jsonl", 9) if kind == "texts" else triples(tmp_path / "t.jsonl", 9)
    task, splits = bound({"train": file, "validation": file})
    task = task.adapted_to(teacher)
    prepared = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True)
    live = LiveTeacher(teacher.model, task)
    capturing = CapturingTeacher(live, task, tmp_path / "cache", Keep(), {})
    batch = whole(prepared)
    capturing(batch)
    capturing.close()
    cached = CachedTeacher(tmp_path / "cache", task)
    assert len(Store(tmp_path / "cache")) == len({*splits["train"][task.form.columns[0]]} if kind == "texts" else
                                                  {one for name in task.form.columns for one in splits["train"][name]})
    ours = said(teacher.model, task, batch)
    for again in (capturing(batch), cached(batch)):
        _, told = task.align(ours, again, batch)
        for name, vectors in live(batch).embeddings.items():
            torch.testing.assert_close(told.embeddings[name], vectors, atol=1e-6, rtol=0)
        if ours.logits is not None:
            assert isinstance(told.logits, Dense)
            torch.testing.assert_close(told.logits.logits, ours.logits.logits, atol=1e-5, rtol=0)  # type: ignore[union-attr]
    assert cached.dims() == live.dims()


def test_pieces_are_found_again_in_any_batch(tmp_path: Path, teacher: Loaded) -> None:
    file = triples(tmp_path / "t.jsonl", 6)
    task, splits = bound({"train": file, "validation": file})
    prepared = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True)
    together = [one.content for one in task.segments(whole(prepared))]
    alone = [one.content for number in range(6) for one in task.segments(prepared.collate([number]))]
    assert together == alone


def test_names_of_columns_say_what_stands_in_them(tmp_path: Path) -> None:
    for columns, kind, wanted in (
        (("anchor", "positive", "negative_1", "negative_2"), "answered", 4), (("question", "answer"), "answered", 2),
        (("sentence1", "sentence2"), "answered", 2), (("text",), "texts", 1),
    ):
        rows = [dict.fromkeys(columns, f"the song {one}") for one in range(4)]
        file = lines(tmp_path / f"{len(columns)}{columns[0]}.jsonl", rows)
        task, _ = bound({"train": file, "validation": file})
        assert (task.form.kind, len(task.form.columns)) == (kind, wanted)


def test_labels_of_pairs_are_scores_where_they_have_fractions_and_else_are_asked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": 4.2}, {"sentence1": "c", "sentence2": "d", "label": 0.0}]
    glue = lines(tmp_path / "glue.jsonl", rows)
    task, _ = bound({"train": glue, "validation": glue}, score_range=[0, 5])
    assert (task.form.kind, task.form.score) == ("scored", "label")
    for said in ([1, 0], ["entailment", "neutral"]):
        pairs = lines(tmp_path / "pairs.jsonl", [{**row, "label": one} for row, one in zip(rows, said)])
        with pytest.raises(DataError, match=r"data\.score: 'label' stands beside 'sentence1' and 'sentence2': does it say"):
            bound({"train": pairs, "validation": pairs})
        task, _ = bound({"train": pairs, "validation": pairs}, text=["sentence1", "sentence2"])
        assert task.form.kind == "answered"
        assert "'label' is not read" in caplog.text
    duplicates = lines(tmp_path / "quora.jsonl", [{"question1": "a", "question2": "b", "is_duplicate": 1},
                                                  {"question1": "a", "question2": "c", "is_duplicate": 0}])
    with pytest.raises(DataError, match="'is_duplicate' stands beside"):
        bound({"train": duplicates, "validation": duplicates})
    task, _ = bound({"train": duplicates, "validation": duplicates}, score="is_duplicate")
    assert (task.form.kind, task.form.score) == ("scored", "is_duplicate")



@pytest.mark.parametrize(("rows", "said_of_it", "words"), [
    ([{"sentence1": "a", "sentence2": "b", "score": 4.5}] * 3, {}, r"go from 4.5 to 4.5.*data\.score_range: \[4, 5\]"),
    ([{"sentence1": "a", "sentence2": "b", "score": 0.5}] * 3, {"score_range": [1, 0]}, "first the score of nothing alike"),
    ([{"text": "a"}, {"text": " "}], {}, "null or empty in 1 of 2"),
    ([{"text": "a", "score": 1.0}] * 2, {"score": "score"}, "Set data.text to two columns"),
    ([{"one": "a b", "two": "c d"}] * 2, {}, "which column is the text"),
    ([{"text": "a"}] * 2, {"text": "txet"}, r"data\.text: got 'txet', which is no column; .* Did you mean text"),
    ([{"sentence1": "a", "sentence2": "b"}] * 2, {"text": ["one", "two"]}, r"data\.text: got 'one', which is no column"),
    ([{"sentence1": "a", "sentence2": "b", "score": "high"}] * 2, {}, r"'score' holds text that says no number"),
    ([{"sentence1": "a", "sentence2": "b"}] * 2, {"score": "grade"}, r"data\.score: got 'grade', which is no column"),
])
def test_mistakes_in_the_data_are_said(tmp_path: Path, rows: Any, said_of_it: Any, words: str) -> None:
    file = lines(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=words):
        bound({"train": file, "validation": file}, **said_of_it)


@pytest.mark.slow
def test_fewer_numbers_than_the_teachers_are_the_recipes_and_can_be_measured(tmp_path: Path, teacher: Loaded) -> None:
    file, pairs = texts(tmp_path / "t.jsonl"), scored(tmp_path / "s.jsonl")
    task, _ = bound({"train": file, "validation": pairs}, score_range=[0, 5], dimensions=8)
    task = task.adapted_to(teacher)
    student = task.started(by_layers(teacher.model, 2).model, StudentSpec(layers=2))
    with pytest.raises(CompatibilityError, match=r"student\.lora: a layer to 8 numbers"):
        task.started(by_layers(teacher.model, 2).model, StudentSpec(layers=2, lora=Lora()))
    assert task.embedding_width(student) == 8
    assert task.embedding_width(teacher.model) == 32
    for splits, width, words in (({"train": file, "validation": file}, 8, "texts by themselves"),
                                 ({"train": file, "validation": pairs}, 64, "at most the teacher's, 32")):
        with pytest.raises(CompatibilityError, match=words):
            bound(splits, score_range=[0, 5], dimensions=width)[0].adapted_to(teacher)


@pytest.mark.slow
def test_beginnings_of_vectors_are_measured_as_cut_vectors_are(tmp_path: Path, teacher: Loaded) -> None:
    pairs, path = scored(tmp_path / "s.jsonl"), _with_training(search(tmp_path / "search"))
    task, splits = bound({"train": path, "validation": pairs}, score_range=[0, 5], matryoshka=[4, 8])
    task = task.adapted_to(teacher)
    values: dict[str, float] = {}
    for split in ("validation", "test"):
        prepared = task.prepare(splits[split], teacher.processor, None, training=False)
        answers = examine(task.exam(), {"teacher": Asked(teacher.model)}, prepared, batch_size=5)["teacher"]
        values |= {metric.name: metric.compute(answers.given, answers.references) for metric in task.exam().metrics()
                   if task.exam().concerns(metric, answers)}
    a, b = (unit(embed(teacher, splits["validation"][name], [None] * 24)[:, :8]) for name in ("sentence1", "sentence2"))
    same = np.array(splits["validation"]["sentence1"]) == np.array(splits["validation"]["sentence2"])
    near = np.where(same, 1.0, (a.astype(np.float64) * b).sum(-1))
    assert values["spearman_first_8"] == pytest.approx(spearmanr(near, splits["validation"]["score"]).statistic, abs=1e-6)
    found = splits["test"]
    queries = [row for row, role in enumerate(found["role"]) if role == "query"]
    cut = unit(embed(teacher, found["text"], [None] * len(found))[:, :4])
    rest, ids = [row for row in range(len(found)) if row not in queries], np.array(found["id"])
    lists = ranking.rankings(cut[queries], cut[rest], ids[rest].tolist(), ids[queries].tolist())
    grades = [{one["id"]: one["grade"] for one in found["relevant"][row]} for row in queries]
    assert values["ndcg_at_10_first_4"] == pytest.approx(
        np.mean([ranking.ndcg(one, said_of_it, 10) for one, said_of_it in zip(lists, grades)]), abs=1e-9)
    assert values["ndcg_at_10_first_4"] != values["ndcg_at_10"]


@pytest.mark.slow
@pytest.mark.parametrize(("said_of_it", "words"), [
    ({"matryoshka": [8, 32]}, "got 32, and the student's vectors have 32 numbers"),
    ({"matryoshka": [8], "dimensions": 8}, "got 8, and the student's vectors have 8 numbers"),
    ({"matryoshka": [8], "validation": "texts"}, "data.matryoshka: texts by themselves"),
])
def test_beginnings_that_cannot_be_measured_are_refused(
    tmp_path: Path, teacher: Loaded, said_of_it: dict[str, Any], words: str
) -> None:
    file, pairs = texts(tmp_path / "t.jsonl"), scored(tmp_path / "s.jsonl")
    measured = file if "validation" in said_of_it else pairs
    with pytest.raises(CompatibilityError, match=words):
        bound({"train": file}, score_range=[0, 5], **{**said_of_it, "validation": measured})[0].adapted_to(teacher)


def test_beginnings_need_an_objective_that_teaches_them(tmp_path: Path) -> None:
    task, _ = bound({"train": texts(tmp_path / "t.jsonl"), "validation": scored(tmp_path / "s.jsonl")}, score_range=[0, 5],
                    matryoshka=[4, 8])
    assert [(one.kind, (one.model_extra or {})["first"]) for one in task.learns_by()] == [("similarities", [4, 8])]
    assert not task.idle([Term(Similarities(first=[4, 8]))])
    assert not task.idle([Term(Labels())])  # of a baseline
    assert "what the first 8 numbers of a vector say" in task.idle([Term(Similarities(first=[4]))])[0]


@pytest.mark.slow
def test_a_folder_cuts_texts_where_the_recipe_does(tmp_path: Path, teacher: Loaded) -> None:
    library = pytest.importorskip("sentence_transformers")
    made, splits = bound({"train": texts(tmp_path / "train.jsonl")}, max_length=6)
    made = made.adapted_to(teacher)
    batch = whole(made.prepare(splits["train"], teacher.processor, None, training=False))
    assert batch.student["attention_mask"].sum(1).max() == 6
    teacher.model.save_pretrained(tmp_path / "student")
    kept = made.as_measured(teacher.processor, teacher.processor)
    kept.save_pretrained(tmp_path / "student")
    given = library.SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(splits["train"]["text"])
    np.testing.assert_allclose(given, said(teacher.model, made, batch).embeddings["text"].detach(), atol=1e-6)
    assert teacher.processor.model_max_length == 64  # which others read with


def test_prompts_of_the_recipe_stand_in_place_of_the_folders(tmp_path: Path) -> None:
    path = folder(tmp_path / "teacher", prompts={"query": "old "})
    file = texts(tmp_path / "t.jsonl")
    task, _ = bound({"train": file, "validation": file}, prompts={"query": "new ", "default": "the "})
    reader = task.load(ModelSource(model=path), labelled=True).processor
    assert (reader.prompt("query"), reader.prompt(None), reader.prompt("document")) == ("new ", "the ", "the ")


def test_documents_of_a_folder_are_learnt_with_the_prompt_of_documents(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher", prompts={"query": "the ", "document": "a new "}))
    path = search(tmp_path / "search", documents=5, queries=2)
    task, splits = bound({"train": _with_training(path)})
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    kinds: Any = ["query"] * 2 + ["document"] * 5
    np.testing.assert_allclose(said(teacher.model, task, batch).embeddings["text"],
                               embed(teacher, splits["train"]["text"], kinds), atol=1e-6)


def _with_training(path: str) -> str:
    judged = Path(path) / "qrels"
    for name in ("train", "dev"):
        (judged / f"{name}.tsv").write_text((judged / "test.tsv").read_text())
    return path


def test_a_teacher_of_another_column_is_measured_where_queries_find_answers_that_have_it_too(
    tmp_path: Path, teacher: Loaded
) -> None:
    texts = sentences(12)
    rows = [{"text": text, "english": other} for text, other in zip(texts, reversed(texts))]
    found = [{"query": text, "positive": text, "english": other} for text, other in zip(texts, reversed(texts))]
    task, splits = bound({"train": lines(tmp_path / "train.jsonl", rows), "validation": lines(tmp_path / "v.jsonl", found)},
                         text="text")
    theirs = task.adapted_to(teacher).taught_from({"text": ("english",)}, splits).of_teacher()
    learnt = theirs.prepare(splits["train"], teacher.processor, None, training=False)
    assert list(said(teacher.model, theirs, whole(learnt)).embeddings) == ["english"]
    measured = theirs.prepare(splits["validation"], teacher.processor, None, training=False)
    answers = examine(theirs.exam(), {"teacher": Asked(teacher.model)}, measured)["teacher"]
    assert {one.name: one.compute(answers.given, answers.references) for one in theirs.exam().metrics()} == {
        "ndcg_at_10": 1, "mrr_at_10": 1, "recall_at_10": 1, "recall_at_100": 1}
