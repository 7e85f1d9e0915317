"""What the teacher finds that does not answer a query: exactly the nearest, never an answer, and what is learnt of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

import stilla
from stilla.check import check
from stilla.data.retrieval_folders import read
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.objectives import term
from stilla.recipe import ObjectiveSpec
from stilla.recipe.file import from_options
from stilla.signals import Dense
from stilla.stages import mining as stage
from stilla.stages.mining import SCHEMA, Search, told
from stilla.stages.parts import Parts
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.exam import EmbeddingExam
from stilla.tasks.retrieval.forms import Form
from stilla.tasks.retrieval.mining import Mining, nearest
from stilla.tasks.retrieval.model import Shape
from stilla.tasks.retrieval.sections import Negatives
from stilla.tasks.retrieval.stored import Known, Table
from stilla.tasks.retrieval.told import embed
from tests.tasks.retrieval.setting import folder, lines, loaded, search, sentences
from tests.tasks.retrieval.test_embedding import bound, unit, whole
from tests.tasks.retrieval.test_embedding import said as said_of
from tests.tasks.retrieval.test_runs import QUICK


def asked(count: int = 24, seed: int = 2) -> list[dict[str, str]]:
    """Queries with what answers them: the same words in another order."""
    return [{"query": one, "positive": " ".join(reversed(one.split()))} for one in sentences(count, seed)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded(folder(tmp_path_factory.mktemp("teacher"), prompts={"query": "the "}))


def mining(rows: list[dict[str, str]] | Dataset, **negatives: Any) -> tuple[Mining, Dataset]:
    split = Dataset.from_list(rows) if isinstance(rows, list) else rows
    form = Form("texts", ("text",)) if "relevant" in split.column_names else Form("answered", tuple(split.column_names))
    return Mining(Negatives(**negatives), form, EmbeddingExam({}).as_compared), split


def by_hand(
    similarities: Any, answers: Any, others: Any, *, mined: int, after: int, below: float
) -> list[list[int]]:
    """One document after the other, the nearest first, of equal ones the first."""
    found = []
    for line, answer, never in zip(similarities, answers, others):
        bar = line[answer]
        limit = bar - (1 - below) * abs(bar)
        order = sorted(range(len(line)), key=lambda place: (-line[place], place))
        left = [place for place in order if place not in never and place != answer and line[place] <= limit]
        found.append(left[after : after + mined])
    return found


# --- what is found ---


@pytest.mark.parametrize(("mined", "after", "below"), [(3, 0, 10.0), (3, 2, 0.95), (30, 0, 0.5), (4, 0, 0.0), (2, 5, 1.0)])
def test_what_is_found_is_what_looking_at_every_document_finds(mined: int, after: int, below: float) -> None:
    """Whole numbers, whose products are exact, so that many are as near as each other; answers also on the far side."""
    draw = np.random.default_rng(mined)
    documents, queries = (draw.integers(-2, 3, size=(count, 3)).astype(np.float32) for count in (40, 60))
    answers = draw.integers(0, 40, 60)
    others = [frozenset(draw.integers(0, 40, 4).tolist()) | {int(answer)} for answer in answers]
    similarities = queries @ documents.T
    assert (similarities[np.arange(60), answers] < 0).any()
    found = nearest(queries, documents, answers, others, Negatives(mined=mined, after=after, below=below))
    expected = by_hand(similarities, answers, others, mined=mined, after=after, below=below)
    assert [places.tolist() for places in found] == expected
    assert any(len(one) == mined for one in expected) or mined == 30
    ties = [line[one] for line, one in zip(similarities, expected) if len(one) > 1]
    assert any((np.diff(one) == 0).any() for one in ties)


def test_no_answer_of_a_query_is_found_nor_what_is_its_negative_nor_its_own_text() -> None:
    """A query that stands twice has the answers of both; broken examples ask nothing."""
    said = sentences(6, 1)
    rows = [{"query": said[0], "positive": said[1], "negative": said[4]},
            {"query": "broken", "positive": said[5], "negative": " "},
            {"query": said[0], "positive": said[2], "negative": "!"},
            {"query": said[3], "positive": said[4], "negative": said[1]},
            {"query": said[5], "positive": said[3], "negative": "?"}]
    how, split = mining(rows, mined=1)
    found = how.questions(split)
    assert found.documents == [said[1], said[2], said[4], said[3]]
    never = {found.queries[place]: {found.documents[one] for one in others} for place, others in enumerate(found.others)}
    assert never == {said[0]: {said[1], said[2], said[4]}, said[3]: {said[4], said[1], said[3]}, said[5]: {said[3]}}
    assert [found.queries[one] for one in found.asked] == [said[0], said[0], said[3], said[5]]
    assert [found.documents[one] for one in found.answers] == [said[1], said[2], said[4], said[3]]
    train = how.with_found(split, found, {1: [3], 3: [0]})
    assert train.to_list() == [{**rows[2], "mined_1": said[3]}, {**rows[4], "mined_1": said[1]}]
    with pytest.raises(DataError, match="got mined: 1 after 3, and the training data have 4 different documents"):
        mining(split, mined=1, after=3)[0].questions(split)
    with pytest.raises(DataError, match="say of no query what answers it"):
        how.questions(split.select([1]))


def test_of_a_folder_the_whole_corpus_is_searched_and_nothing_relevant_found(tmp_path: Path) -> None:
    place = Path(search(tmp_path / "search", documents=12, queries=4))
    (place / "qrels" / "test.tsv").rename(place / "qrels" / "train.tsv")
    with (place / "qrels" / "train.tsv").open("a") as judged:
        judged.write("q0\td7\t0\n")  # looked at, and no answer
    with (place / "queries.jsonl").open("a") as more:
        more.write(json.dumps({"_id": "d9", "text": "what is like it"}) + "\n")
    with (place / "qrels" / "train.tsv").open("a") as judged:
        judged.write("d9\td8\t1\n")  # a document that asks for what is like it
    how, split = mining(read(place)["train"], mined=2)
    found = how.questions(split)
    assert len(found.documents) == 12
    texts = dict(zip(zip(split["role"], split["id"]), split["text"]))
    number = {name: found.documents.index(text) for (role, name), text in texts.items() if role == "document"}
    first = found.queries.index(texts["query", "q0"])
    assert found.others[first] == {number["d0"], number["d3"]}
    assert found.others[found.queries.index("what is like it")] == {number["d8"], number["d9"]}
    assert len(found) == 9  # two answers each, and one
    train = how.with_found(split, found, {0: [5, 6], 8: [1, 2]})
    assert train.column_names == ["query", "positive", "mined_1", "mined_2"]
    assert train[1] == {"query": "what is like it", "positive": texts["document", "d8"], "mined_1": found.documents[1],
                        "mined_2": found.documents[2]}


@pytest.mark.slow
def test_vectors_are_the_teachers_with_its_prompts_and_blocks_change_nothing(
    tmp_path: Path, teacher: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = asked(40)
    how, split = mining(rows, mined=3, below=0.9)
    questions = how.questions(split)
    for name, texts, at_once in (("one", 7, 2**24), ("other", 32, 100)):
        monkeypatch.setattr(stage, "TEXTS", texts)
        monkeypatch.setattr(stage, "AT_ONCE", at_once)
        found = Search(how, questions, teacher)
        found.write(tmp_path / name, found.inputs())
    queries, documents = (unit(embed(teacher, texts, [kind] * len(texts)))  # type: ignore[list-item]
                          for texts, kind in ((questions.queries, "query"), (questions.documents, "document")))
    near = queries[questions.asked] @ documents.T
    others = [questions.others[one] for one in questions.asked]
    expected = by_hand(near, questions.answers, others, mined=3, after=0, below=0.9)
    for name in ("one", "other"):
        written = Parts(tmp_path / name, SCHEMA).table()
        assert written["places"].to_pylist() == expected
        assert written["documents"].to_pylist() == [[questions.documents[one] for one in places] for places in expected]
    assert max(map(len, expected)) == 3


@pytest.mark.slow
def test_a_killed_search_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, teacher: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TEXTS", 2)
    how, split = mining(asked(12), mined=2)
    found = Search(how, how.questions(split), teacher)
    found.write(tmp_path / "whole", found.inputs())
    real, calls = Parts.save, list[int]()

    def killed(self: Parts, rows: Any, number: int, mark: str) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, rows, number, mark)

    monkeypatch.setattr(Parts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        found.write(tmp_path / "killed", found.inputs())
    monkeypatch.setattr(Parts, "save", real)
    found.write(tmp_path / "killed", found.inputs())
    files = sorted(one.relative_to(tmp_path / "whole") for one in (tmp_path / "whole").rglob("*.*"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()


def test_what_is_found_depends_on_texts_answers_settings_and_teacher(tmp_path: Path, teacher: Loaded) -> None:
    rows = asked(8)
    how, split = mining(rows, mined=2)
    plain = Search(how, how.questions(split), teacher).inputs()
    swapped = [{**one, "positive": other["positive"]} for one, other in zip(rows, reversed(rows))]
    for changed, said in ((rows, {"mined": 3}), (rows, {"mined": 2, "below": 0.9}), (rows, {"mined": 2, "after": 1}),
                          (rows[1:], {"mined": 2}), (swapped, {"mined": 2})):
        other, examples = mining(changed, **said)
        assert Search(other, other.questions(examples), teacher).inputs() != plain
    another = loaded(folder(tmp_path / "another", seed=1))
    assert Search(how, how.questions(split), another).inputs() != plain
    for other in (replace(how, max_length=8), replace(how, shape=Shape("mean", False, "dot"))):
        assert Search(other, how.questions(split), teacher).inputs() != plain


def test_rows_for_which_too_little_is_left_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    how, _ = mining(asked(8), mined=2)
    rows = [{"key": number, "query": "q", "answer": "a", "places": places, "documents": []}
            for number, places in enumerate([[1, 2], [1], [3, 4], []])]
    assert told(pa.Table.from_pylist(rows, SCHEMA), how) == {0: [1, 2], 2: [3, 4]}
    assert "negatives: 2 documents beside each of 2 queries; 2 left out, for which fewer than 2" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"for none of 2 queries was enough found: fewer than 2 .* 0\.95 of the answer"):
        told(pa.Table.from_pylist([rows[1], rows[3]], SCHEMA), how)


# --- what is learnt of it ---


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    data = {"train": lines(place / "t.jsonl", asked(16)), "validation": lines(place / "v.jsonl", asked(8, 5)),
            "negatives": {"mined": 2, "below": 10.0}}
    return {"task": "embedding", "teacher": folder(place / "teacher"), "student": {"layers": 2}, "output": str(place / "run"),
            **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


def test_what_is_found_stands_beside_a_query_and_the_answer_is_first(tmp_path: Path, teacher: Loaded) -> None:
    files = {"train": lines(tmp_path / "t.jsonl", asked(16)), "validation": lines(tmp_path / "v.jsonl", asked(4))}
    task, splits = bound(files, negatives={"mined": 2})
    assert task.has_labels
    assert task.mining is not None
    task = task.adapted_to(teacher)
    questions, train = task.mining.as_if_found(splits["train"])
    with_found = task.with_found(task.mining.learnt)
    prepared = with_found.prepare(train, teacher.processor, None, training=True)
    batch = whole(prepared)
    signals = said_of(teacher.model, with_found, batch)
    assert list(signals.embeddings) == ["query", "positive", "mined_1", "mined_2"]
    assert signals.labels is not None
    assert isinstance(signals.logits, Dense)
    assert signals.labels.tolist() == [0] * len(questions)
    assert with_found.row_classes() == 3
    assert with_found.of_teacher().row_classes() == 1
    texts = [train[column][5] for column in signals.embeddings]
    kinds = ["query", *["document"] * 3]
    query, *others = unit(embed(teacher, texts, kinds))  # type: ignore[arg-type]
    np.testing.assert_allclose(signals.logits.logits[5] / 20, [query @ one for one in others], atol=1e-5)
    measured = with_found.prepare(splits["validation"], teacher.processor, None, training=False)
    assert len(next(iter(measured.collate([measured.examples[0]]).student.values()))) == 2  # no candidates were found there


def test_objectives_that_compare_no_candidates_are_refused(tmp_path: Path) -> None:
    task, _ = bound({"train": lines(tmp_path / "t.jsonl", asked(16))}, negatives={"mined": 2})
    assert [spec.kind for spec in task.learns_by()] == ["embedding", "logits"]
    assert task.idle([term(spec) for spec in task.learns_by()]) == []
    assert "no objective compares a query's candidates" in task.idle([term(ObjectiveSpec(kind="embedding"))])[0]
    for kind in ("margins", "listwise", "labels", "contrastive"):
        assert task.idle([term(ObjectiveSpec(kind=kind))]) == []


@pytest.mark.parametrize(("rows", "words"), [
    ([{"text": "a"}] * 4, "training data are texts by themselves"),
    ([{"sentence1": "a", "sentence2": "b", "score": 0.5}] * 4, "training data are pairs with a score"),
    ([{"query": "a", "positive": "b", "mined_1": "c"}] * 4, "columns like 'mined_1', and the training data have one"),
])
def test_data_without_queries_and_answers_are_refused(tmp_path: Path, rows: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        bound({"train": lines(tmp_path / "t.jsonl", rows)}, negatives={"mined": 2})


def test_what_makes_no_sense_is_said_by_name(tmp_path: Path) -> None:
    task, splits = bound({"train": lines(tmp_path / "t.jsonl", [{**one, "their": "x"} for one in asked(16)])},
                         negatives={"mined": 2}, text=["query", "positive"])
    with pytest.raises(CompatibilityError, match=r"data\.negatives: the teacher reads other columns"):
        task.taught_from({"text": ("query", "their")}, splits)
    plain = recipe(tmp_path)
    for changes, words in (({"teacher": {"model": "m", "api": {"url": "http://localhost:1/v1"}}}, "behind an address"),
                           ({"data": {**plain["data"], "unlabelled": plain["data"]["train"]}}, "stand unlabelled"),
                           ({"data": {**plain["data"], "train": None, "unlabelled": "x"}}, "in data.train, and there is")):
        assert any(words in one for one in stage.problems(from_options({**plain, **changes}), task))
    assert stage.problems(from_options(plain), task) == []


def test_a_teacher_learns_before_it_finds_where_rows_say_what_answers(tmp_path: Path) -> None:
    learns = from_options(recipe(tmp_path, teacher={"model": "m", "train": {"epochs": 1}}))
    rows, _ = bound({"train": lines(tmp_path / "rows.jsonl", asked(16))}, negatives={"mined": 2})
    assert stage.problems(learns, rows) == []
    place = Path(search(tmp_path / "search"))
    (place / "qrels" / "test.tsv").rename(place / "qrels" / "train.tsv")
    texts, _ = bound({"train": str(place)}, negatives={"mined": 2})
    assert [one[:13] for one in stage.problems(learns, texts)] == ["teacher.train"]


def test_a_file_of_vectors_needs_those_of_documents_too(tmp_path: Path) -> None:
    task, _ = bound({"train": lines(tmp_path / "t.jsonl", asked(16))}, negatives={"mined": 2})
    queries = {one["query"]: number for number, one in enumerate(asked(16))}
    known = Loaded(Table(torch.eye(16)), Known("said.parquet", queries), "said.parquet")
    with pytest.raises(DataError, match=r"said\.parquet has no vectors of"):
        task.adapted_to(known)


@pytest.mark.slow
def test_a_run_finds_once_learns_from_it_and_refuses_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = [{"kind": "embedding"}, {"kind": "margins"}, {"kind": "logits", "temperature": 1.0}, {"kind": "labels"}]
    asks = recipe(tmp_path, distill={**QUICK["distill"], "objectives": objectives},
                  evaluate={**QUICK["evaluate"], "baseline": True})
    findings = check(from_options(asks))
    assert findings.problems == ()
    assert any("the teacher reads 16 queries and 16 documents once, to find 2 beside each" in one for one in findings.notes)
    assert findings.estimate is not None
    assert findings.estimate.seconds["negatives"].high > 0
    run = stilla.distill(asks)
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    assert run.scores.spent["negatives"]["seconds"] > 0
    rows = pq.read_table(run.folder / "negatives" / "part-00000.parquet").to_pylist()
    assert len(rows) == 16
    assert all(len(row["documents"]) == 2 and row["answer"] not in row["documents"] for row in rows)
    assert not (run.folder / "negatives" / "vectors").exists()
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[2])
    assert set(logged["terms"]) == {one["kind"] for one in objectives}
    stages = (run.folder / "stages.json").read_text()
    capsys.readouterr()
    stilla.distill(asks)
    assert "negatives: finished before, skipped" in capsys.readouterr().err
    assert (run.folder / "stages.json").read_text() == stages
    lines(tmp_path / "t.jsonl", asked(16, 9))
    with pytest.raises(RecipeError, match="of another recipe"):
        stilla.distill(asks)
