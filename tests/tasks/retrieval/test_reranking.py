"""Rerankers: from files to signals, what is measured of them, and every mistake in the data, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset

from stilla import data
from stilla.cache import Store
from stilla.data import sources
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine, is_weak
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch, Dense, Side, Signals
from stilla.students import by_layers, fresh
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.forward import listen
from stilla.tasks.retrieval.candidates import form_of, read
from stilla.tasks.retrieval.reranking import Reranking
from stilla.tasks.retrieval.reranking_exam import Judgements
from stilla.tasks.retrieval.sections import RerankingData
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher
from tests.tasks.retrieval.rerankers import IDENTITY, SIGMOID, folder, lists, loaded, pairs, searched
from tests.tasks.retrieval.setting import lines, triples


def bound(splits: dict[str, str], **said: Any) -> tuple[Reranking, dict[str, Dataset]]:
    section = RerankingData.model_validate({**splits, **said})
    found = data.load(section, seed=0)
    return Reranking.understand(section, found), found


@pytest.fixture
def teacher(tmp_path: Path) -> Loaded:
    return loaded(folder(tmp_path / "teacher"))


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def said(model: torch.nn.Module, task: Reranking, batch: Batch) -> Signals:
    with torch.no_grad():
        return listen(model, task, batch, Side.STUDENT)


def alone(model: Loaded, query: str, text: str) -> float:
    """The raw score of one pair, by transformers alone."""
    with torch.no_grad():
        return float(model.model(**model.processor(query, text, truncation=True, return_tensors="pt")).logits)


def asked(task: Reranking, split: Dataset, *models: Loaded, size: int = 5) -> dict[str, Answers]:
    prepared = task.prepare(split, models[0].processor, None, training=False)
    names = ("teacher", "student")
    return examine(task.exam(), {name: Asked(one.model) for name, one in zip(names, models)}, prepared, batch_size=size)


def values(task: Reranking, answers: Answers) -> dict[str, float]:
    exam = task.exam()
    return {one.name: one.compute(answers.given, answers.references) for one in exam.metrics() if exam.concerns(one, answers)}


def ready(splits: dict[str, str], teacher: Loaded, **more: Any) -> tuple[Reranking, dict[str, Dataset]]:
    task, found = bound(splits, **more)
    return task.adapted_to(teacher), found


def test_grades_and_scores_of_a_table_of_texts_are_numbers(tmp_path: Path) -> None:
    for said, amounts in ((("1", "0", ""), False), (("0.5", "-2e1", "1"), True)):
        path = tmp_path / "pairs.csv"
        path.write_text("query,passage,label\n" + "".join(f"who?,text {place},{one}\n" for place, one in enumerate(said)))
        form = form_of(RerankingData(train=str(path)), sources.read(str(path))["train"])
        assert (form.score, form.amounts) == ("label", amounts)


WORDS = [{"query": "a", "passage": "b", "label": "relevant"}, {"query": "a", "passage": "c", "label": " partly "},
         {"query": "d", "passage": "e", "label": ""}]


def graded(split: Dataset, section: RerankingData) -> list[float]:
    return [grade for one in read(form_of(section, split), split, range(len(split)), training=False, most=8)
            for grade in one.grades]


def test_words_are_grades_where_the_recipe_says_what_they_stand_for() -> None:
    section = RerankingData(train="x", grades={"relevant": 2, "partly": 1})
    listed = [{"query": "a", "documents": ["b", "c"], "labels": ["partly", "relevant"]}]
    classes = Dataset.from_list([{**one, "label": number} for number, one in enumerate(WORDS)]).cast_column(
        "label", ClassLabel(names=["partly", "relevant", "0"]))
    assert graded(Dataset.from_list(WORDS), section) == pytest.approx([2, 1, np.nan], nan_ok=True)
    assert graded(Dataset.from_list(listed), section) == [1, 2]
    assert graded(classes, section) == [1, 2, 0]


@pytest.mark.parametrize(("names", "expected"), [
    (["irrelevant", "relevant"], [0, 1]), (["0", "1"], [0, 1]), (["1", "0"], [1, 0]), (["true", "false"], [1, 0])])
def test_two_classes_are_0_and_1_in_their_order_or_what_their_names_say(names: list[str], expected: list[float]) -> None:
    assert graded(classed(names), RerankingData(train="x")) == expected


@pytest.mark.parametrize("names", [["entailment", "not_entailment"], ["relevant", "irrelevant"], ["yes", "no"]])
def test_two_classes_of_which_the_first_is_the_answer_are_not_taken_by_their_order(names: list[str]) -> None:
    """QNLI's: class 0 answers the question."""
    with pytest.raises(DataError, match=f"{names[0]}.*data.grades"):
        graded(classed(names), RerankingData(train="x"))
    assert graded(classed(names), RerankingData(train="x", grades={names[0]: 1, names[1]: 0})) == [1, 0]


def classed(names: list[str]) -> Dataset:
    rows = [{"query": "a", "passage": passage, "label": number} for number, passage in enumerate(("b", "c"))]
    return Dataset.from_list(rows).cast_column("label", ClassLabel(names=names))


def test_true_and_false_in_a_table_of_texts_are_grades() -> None:
    rows = [{"query": "a", "passage": "b", "label": "True"}, {"query": "a", "passage": "c", "label": "false"}]
    assert graded(Dataset.from_list(rows), RerankingData(train="x")) == [1, 0]


def test_a_querys_candidates_stand_together_in_training(tmp_path: Path, teacher: Loaded) -> None:
    file = lists(tmp_path / "l.jsonl")
    task, splits = ready({"train": file, "validation": file}, teacher)
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    signals = said(teacher.model, task, batch)
    rows = splits["train"].with_format(None)[:]
    expected = [(query, text) for query, texts in zip(rows["query"], rows["documents"]) for text in texts]
    assert isinstance(signals.logits, Dense)
    np.testing.assert_allclose(signals.logits.logits[:, 0], [alone(teacher, *pair) for pair in expected], atol=1e-5)
    assert signals.queries is not None
    assert signals.queries.bincount().tolist() == [len(one) for one in rows["documents"]]
    assert signals.labels is not None
    assert signals.labels.tolist() == [int(one > 0) for grades in rows["labels"] for one in grades]
    counts = task.counts(batch)
    assert (counts["rows"], counts["labelled"], counts["queries"]) == (len(expected), len(expected), 12)


def test_pairs_of_one_query_are_found_and_long_lists_are_read_in_parts(tmp_path: Path, teacher: Loaded) -> None:
    file = pairs(tmp_path / "p.jsonl", count=6, each=5)
    task, splits = ready({"train": file, "validation": file}, teacher, candidates=3)
    prepared = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True)
    sizes = [len(prepared.collate([one]).student["input_ids"]) for one in range(len(prepared))]
    assert sizes == [3, 2] * 6
    assert prepared.keys.tolist() == [number * 5 + part for number in range(6) for part in range(2)]
    batch = prepared.collate([0])
    texts = [teacher.processor.decode(ids, skip_special_tokens=True) for ids in batch.student["input_ids"]]
    assert [splits["train"]["passage"][place] in text for place, text in zip((0, 2, 4), texts)] == [True] * 3


def test_every_pair_that_is_measured_is_known_by_its_own_row(tmp_path: Path, teacher: Loaded) -> None:
    rows = [{"query": query, "passage": text, "label": 0} for text in ("a", "b", "a") for query in ("the song", "the band")]
    file = lines(tmp_path / "p.jsonl", rows)
    task, splits = ready({"train": file, "validation": file}, teacher)
    prepared = task.prepare(splits["validation"], teacher.processor, None, training=False)
    assert prepared.keys.tolist() == [0, 2, 1, 3]  # one that stands there twice is one candidate


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "lists", "triples", "search"])
def test_rankings_are_those_of_trec_eval(tmp_path: Path, teacher: Loaded, kind: str) -> None:
    trec = pytest.importorskip("pytrec_eval")
    make: Any = {"pairs": lambda: pairs(tmp_path / "d.jsonl"), "lists": lambda: lists(tmp_path / "d.jsonl"),
                 "triples": lambda: triples(tmp_path / "d.jsonl", 12), "search": lambda: searched(tmp_path / "s")}[kind]
    place = make()
    task, splits = ready({"train": place} if kind == "search" else {"train": place, "validation": place}, teacher)
    split = splits["validation"].with_format(None)
    found = asked(task, split, teacher)["teacher"]
    run, grades = {}, {}
    for number, (one, judged) in enumerate(zip(found.given, found.references)):
        run[str(number)] = dict(zip(one["documents"], map(float, one["similarities"])))
        grades[str(number)] = {name: int(grade) for name, grade in judged.grades.items()}
        for name, score in run[str(number)].items():
            assert score == pytest.approx(alone(teacher, judged.query, judged.titles[name]), abs=1e-5)
    theirs = trec.RelevanceEvaluator(grades, {"ndcg_cut.10", "recip_rank_cut.10"} - {"recip_rank_cut.10"} | {"recip_rank"})
    theirs = theirs.evaluate(run)
    ours = values(task, found)
    assert ours["ndcg_at_10"] == pytest.approx(np.mean([one["ndcg_cut_10"] for one in theirs.values()]), abs=1e-6)
    assert ours["mrr_at_10"] == pytest.approx(np.mean([one["recip_rank"] for one in theirs.values()]), abs=1e-6)
    assert ours["teacher_kendall"] == pytest.approx(1)
    assert len(found) == {"pairs": 12, "lists": 12, "triples": 12, "search": 9}[kind]


def test_a_query_whose_answer_was_not_found_counts_as_nothing_found(tmp_path: Path, teacher: Loaded) -> None:
    place = Path(searched(tmp_path / "s"))
    (place / "runs" / "dev.trec").write_text("".join(f"q{query} Q0 d{29 - query} 1 1.0 x\n" for query in range(9)))
    task, splits = ready({"train": str(place)}, teacher)
    found = asked(task, splits["validation"], teacher)["teacher"]
    assert len(found) == 9
    assert values(task, found)["ndcg_at_10"] == 0
    learnt = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True)
    labels = whole(learnt).labels
    assert labels is not None
    assert int((labels > 0).sum()) == 18  # what answers a query is learnt, found or not


def test_without_a_first_search_what_was_judged_is_put_in_order(tmp_path: Path, teacher: Loaded) -> None:
    task, splits = ready({"train": searched(tmp_path / "s", run=False)}, teacher)
    found = asked(task, splits["test"], teacher)["teacher"]
    assert {len(one["documents"]) for one in found.given} == {2}


def test_the_order_in_which_candidates_stand_changes_no_measure(tmp_path: Path, teacher: Loaded) -> None:
    file = lists(tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    turned = [{**row, "documents": row["documents"][::-1], "labels": row["labels"][::-1]} for row in rows[::-1]]
    other = lines(tmp_path / "b.jsonl", turned)
    torch.nn.init.zeros_(teacher.model.classifier.weight)  # all scores are the same: only ties are left
    task, splits = ready({"train": file, "validation": file, "test": other}, teacher)
    one, two = (values(task, asked(task, splits[name], teacher)["teacher"]) for name in ("validation", "test"))
    assert one["ndcg_at_10"] == pytest.approx(two["ndcg_at_10"], abs=1e-12)
    assert one["mrr_at_10"] == pytest.approx(two["mrr_at_10"], abs=1e-12)


def test_order_is_held_against_the_teachers(tmp_path: Path, teacher: Loaded) -> None:
    from scipy.stats import kendalltau

    file = lists(tmp_path / "l.jsonl", labelled=False)
    task, splits = ready({"train": file, "validation": file}, teacher)
    assert not task.has_labels
    student = Loaded(by_layers(teacher.model, 1).model, teacher.processor, "")
    answers = asked(task, splits["validation"], teacher, student)
    assert values(task, answers["teacher"]) == {"teacher_kendall": pytest.approx(1)}
    rows = splits["validation"].with_format(None)[:]
    taus = [kendalltau(*[[alone(one, query, text) for text in texts] for one in (student, teacher)]).statistic
            for query, texts in zip(rows["query"], rows["documents"])]
    assert values(task, answers["student"])["teacher_kendall"] == pytest.approx(np.mean(taus), abs=1e-6)
    apart = task.exam().divergence(answers["teacher"], answers["student"])
    assert apart is not None
    assert (apart > 0).all()


def test_scores_are_learnt_as_they_are_and_say_no_right_or_wrong(tmp_path: Path, teacher: Loaded) -> None:
    file = pairs(tmp_path / "p.jsonl", scores=True)
    with pytest.raises(DataError, match=r"data\.validation: the numbers in 'score' go down to -0.5"):
        bound({"train": file, "validation": file})
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    good = lines(tmp_path / "v.jsonl", [{**row, "score": row["score"] + 0.75} for row in rows])
    task, splits = ready({"train": file, "validation": good}, teacher)
    labels = whole(task.prepare(splits["train"], teacher.processor, None, training=True)).labels
    assert labels is not None
    assert labels.tolist() == splits["train"]["score"]
    assert set(values(task, asked(task, splits["validation"], teacher)["teacher"])) == {"ndcg_at_10", "teacher_kendall"}


@pytest.mark.slow
@pytest.mark.parametrize(("says", "expected"), [(IDENTITY, IDENTITY), (SIGMOID, SIGMOID), (None, IDENTITY)])
@pytest.mark.parametrize("how", ["layers", "fresh", "given"])
def test_a_students_folder_gives_our_scores_in_sentence_transformers(
    tmp_path: Path, says: str | None, expected: str, how: str
) -> None:
    library = pytest.importorskip("sentence_transformers")
    teacher = loaded(folder(tmp_path / "teacher", says=says))
    file = pairs(tmp_path / "p.jsonl")
    task, splits = ready({"train": file, "validation": file}, teacher)
    if how == "given":
        made = task.load(ModelSource(model=folder(tmp_path / "given", layers=1, says=None)), labelled=False).model
    else:
        made = (by_layers(teacher.model, 2) if how == "layers" else fresh(teacher.model, {"num_hidden_layers": 1})).model
    student = task.started(made, StudentSpec(layers=2)).eval()
    student.save_pretrained(tmp_path / "student")  # type: ignore[operator]
    teacher.processor.save_pretrained(tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["sentence_transformers"] == {"activation_fn": expected}
    answers = asked(task, splits["validation"], Loaded(student, teacher.processor, ""))["teacher"]
    cross = library.CrossEncoder(str(tmp_path / "student"), device="cpu")
    for one, judged in zip(answers.given, answers.references):
        both = [(judged.query, judged.titles[name]) for name in one["documents"]]
        raw = cross.predict(both, activation_fn=torch.nn.Identity())
        np.testing.assert_allclose(one["similarities"], raw, atol=1e-6)
        plain = cross.predict(both)
        wanted = one["similarities"] if expected == IDENTITY else 1 / (1 + np.exp(-one["similarities"]))
        np.testing.assert_allclose(wanted, plain, atol=1e-6)


@pytest.mark.parametrize("kind", ["lists", "pairs"])
def test_a_cache_gives_the_teachers_scores_back(tmp_path: Path, teacher: Loaded, kind: str) -> None:
    file = (lists if kind == "lists" else pairs)(tmp_path / "d.jsonl")
    task, splits = ready({"train": file, "validation": file}, teacher)
    batch = whole(task.prepare(splits["train"], teacher.processor, teacher.processor, training=True))
    live = LiveTeacher(teacher.model, task)
    capturing = CapturingTeacher(live, task, tmp_path / "cache", Keep(), {})
    capturing(batch)
    capturing.close()
    cached = CachedTeacher(tmp_path / "cache", task)
    assert len(Store(tmp_path / "cache")) == len({one.content for one in task.segments(batch)})
    for again in (capturing(batch), cached(batch)):
        assert isinstance(again.logits, Dense)
        torch.testing.assert_close(again.logits.logits, live(batch).logits.logits, atol=1e-5, rtol=0)  # type: ignore[union-attr]
    assert cached.dims() == live.dims()


def test_a_chance_order_is_worse_than_a_teacher_that_knows(tmp_path: Path, teacher: Loaded) -> None:
    file = lists(tmp_path / "l.jsonl", count=40)
    task, splits = ready({"train": file, "validation": file}, teacher)
    answers = asked(task, splits["validation"], teacher)["teacher"]
    knowing = [{"documents": sorted(one["documents"], key=lambda name: -judged.grades[name]),
                "similarities": np.sort(one["similarities"])[::-1]} for one, judged in zip(answers.given, answers.references)]
    assert not is_weak(task.exam(), answers.but(knowing))
    view: Any = task.exam().view(splits["validation"], {"teacher": answers}, 3, 0)
    assert view.question == splits["validation"]["query"][3]
    assert view.lists["teacher"][0].text == answers.given[3]["documents"][0]


@pytest.mark.parametrize(("rows", "said_of_it", "words"), [
    ([{"query": "a", "documents": ["b", "c"], "labels": [1]}] * 2, {}, "not as many entries"),
    ([{"query": "a", "passage": "b", "label": 1}, {"query": "c", "passage": " ", "label": 0}], {}, "null or empty in 1 of 2"),
    ([{"one": "a", "two": "b"}] * 2, {}, r"data\.text: which columns are the query"),
    ([{"query": "a", "passage": "b", "label": 1, "score": 0.5}] * 2, {}, r"data\.score: 'label' and 'score' could"),
    ([{"query": "a", "passage": "b", "label": 1}] * 2, {"text": ["query", "body"]}, r"data\.text: got 'body', which is no"),
    ([{"query": "a", "passage": "b", "label": 1}] * 2, {"score": "grade"}, r"data\.score: got 'grade', which is no"),
    ([{"query": "a", "positive": "b", "negative": "c", "grade": 1}] * 2, {"score": "grade"}, "the second answers"),
    (WORDS, {}, r"'label' holds words that are no numbers: 'relevant', 'partly'\. Say what they stand for: data\.grades"),
    (WORDS, {"score": "label", "grades": {"relevant": 1}}, "holds words that are no numbers: 'partly'"),
    ([{"query": "a", "documents": ["b", "c"], "labels": ["yes", "no"]}] * 2, {}, "no numbers: 'yes', 'no'"),
    ([{"query": "a", "documents": ["b", "c"], "label": 1}] * 2, {}, "holds int64; expected a list of numbers"),
    ([{"query": "a", "passage": "b", "label": 1}] * 2, {"grades": {"yes": 1}}, r"data\.grades: got 'yes', which no column"),
    ([{"query": "a", "passage": 3}] * 2, {"text": ["query", "passage"]}, "holds int64; expected text or lists of text"),
])
def test_mistakes_in_the_data_are_said(tmp_path: Path, rows: Any, said_of_it: Any, words: str) -> None:
    file = lines(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=words):
        bound({"train": file, "validation": file}, **said_of_it)


def test_a_head_of_several_classes_is_refused(tmp_path: Path) -> None:
    file = pairs(tmp_path / "p.jsonl")
    task, _ = bound({"train": file, "validation": file})
    with pytest.raises(CompatibilityError, match=r"has 2 outputs; expected one score"):
        task.adapted_to(loaded(folder(tmp_path / "two", outputs=2)))


@pytest.mark.parametrize(("name", "text", "words"), [
    ("dev.trec", "q0 Q0 d99 1 1.0 x\n", "1 document is not in corpus.jsonl: d99"),
    ("dev.trec", "q0 Q0 d1 1 high x\n", "line 1: got"), ("dev.trec", "q0 d1 1 2\n", "expected TREC's six columns"),
    ("other.trec", "q0 Q0 d1 1 1.0 x\n", "expected the name of a file in qrels/"),
    ("dev.tsv", "query-id\tcorpus-id\nq0\td1\n", "several files are called 'dev'"),
])
def test_mistakes_in_what_a_first_search_found_are_said(tmp_path: Path, name: str, text: str, words: str) -> None:
    place = searched(tmp_path / "s")
    (Path(place) / "runs" / name).write_text(text)
    with pytest.raises(DataError, match=words):
        bound({"train": place})


def test_what_was_found_is_in_order_of_its_scores_whatever_the_columns(tmp_path: Path) -> None:
    place = Path(searched(tmp_path / "s"))
    for text in ("q0 Q0 d1 2 1.0 x\nq0 Q0 d2 1 3.0 x\n", "query-id\tcorpus-id\tscore\nq0\td1\t1.0\nq0\td2\t2.5\n",
                 "q0 d2\nq0 d1\n"):
        (place / "runs" / "dev.trec").write_text(text)
        _, splits = bound({"train": str(place)})
        assert splits["validation"].with_format(None)["candidates"][0] == ["d2", "d1"]


def test_a_few_queries_of_a_search_come_with_their_candidates(tmp_path: Path, teacher: Loaded) -> None:
    """So that what is looked at before a training, or kept after it, has something to read."""
    task, splits = bound({"train": searched(tmp_path / "search"), "test": str(tmp_path / "search")})
    whole = task.prepare(splits["test"], teacher.processor, None, training=False).references
    some = task.prepare(data.from_all_over(splits["test"], 2), teacher.processor, None, training=False).references
    assert isinstance(whole, Judgements)
    assert isinstance(some, Judgements)
    assert [(one.query, one.names) for one in some.asked] == [(one.query, one.names) for one in whole.asked[:1]]
    assert len(data.from_all_over(splits["test"], 2)) < len(splits["test"])
