"""Teachers of rerankers that read other queries and documents than their students: a translation, a whole document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import stilla
from stilla.errors import DataError
from stilla.signals import Batch, Side
from stilla.tasks.base import Prepared
from stilla.tasks.retrieval.candidates import Form, flat, read
from stilla.tasks.retrieval.reranking import Reranking
from stilla.tasks.retrieval.reranking_exam import Judgements
from stilla.tasks.retrieval.sections import RerankingData
from tests.tasks.retrieval.rerankers import folder, loaded
from tests.tasks.retrieval.setting import lines, sentences

PAIRS = {"query": ["the bread", "the bread", "old song", "old song"], "document": ["soup", "a drum", "flute", "salt"],
         "query_en": ["bread of soup", "bread of soup", "song", "song"],
         "document_en": ["the cheese and the soup", "drum", "good flute with choir", "ball"], "label": [1, 0, 1, 0]}
LISTS = {"query": ["the bread", "old song"], "document": [["soup", "a drum"], ["flute", "salt"]],
         "query_en": ["bread of soup", "song"], "document_en": [["the cheese and the soup", "drum"],
                                                               ["good flute with choir", "ball"]], "label": [[1, 0], [1, 0]]}
TRIPLES = {"query": LISTS["query"], "positive": ["soup", "flute"], "negative": ["a drum", "salt"],
           "query_en": LISTS["query_en"], "positive_en": ["the cheese and the soup", "good flute with choir"],
           "negative_en": ["drum", "ball"]}
FORMS = [PAIRS, LISTS, TRIPLES]


def texts(rows: dict[str, Any], more: str = "") -> tuple[str, ...]:
    return tuple(f"{name}{more}" for name in rows if name != "label" and not name.endswith("_en"))


def task_of(rows: dict[str, Any], told: tuple[str, ...] | None = None, length: int | None = None, **said: Any) -> Reranking:
    splits = {"train": Dataset.from_dict(rows)}
    section = {"train": "x", "text": list(texts(rows)), **({"score": "label"} if "label" in rows else {}), **said}
    task = Reranking.understand(RerankingData.model_validate(section), splits)
    task = task.taught_from({"text": texts(rows, "_en") if told is None else told} if told != () else {}, splits)
    return task if length is None else task.taught_at_length(length)


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def tokens(inputs: Any) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])]


@pytest.mark.slow
@pytest.mark.parametrize("rows", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_scores_its_own_texts_of_the_same_candidates(tmp_path: Path, rows: dict[str, Any], training: bool) -> None:
    teacher, split = loaded(folder(tmp_path / "teacher")), Dataset.from_dict(rows)
    task = task_of(rows).adapted_to(teacher)
    prepared = task.prepare(split, teacher.processor, teacher.processor, training=training)
    batch = whole(prepared)
    asked = [[("the bread", "soup"), ("the bread", "a drum"), ("old song", "flute"), ("old song", "salt")],
             [("bread of soup", "the cheese and the soup"), ("bread of soup", "drum"), ("song", "good flute with choir"),
              ("song", "ball")]]
    for side, pairs in zip(Side, asked):
        assert tokens(batch[side.value]) == [teacher.processor(*pair)["input_ids"] for pair in pairs]
        with torch.no_grad():
            said = task.signals(teacher.model(**batch[side.value]), batch, side).logits
            alone = [float(teacher.model(**teacher.processor(*pair, return_tensors="pt")).logits) for pair in pairs]
        np.testing.assert_allclose(said.logits[:, 0], alone, atol=1e-5)
    assert not prepared.aligned
    by_itself = whole(task.of_teacher().prepare(split, teacher.processor, None, training=training))
    assert torch.equal(by_itself.student["input_ids"], batch.teacher["input_ids"])
    student = whole(task.prepare(split, teacher.processor, None, training=training))
    assert torch.equal(student.student["input_ids"], batch.student["input_ids"])
    assert len({one.content for one in task.segments(batch)}) == 4
    if not training:  # by whose order others are judged
        assert isinstance(prepared.references, Judgements)
        told = [value for judged in prepared.references.of_queries for value in (judged.told or {}).values()]
        np.testing.assert_allclose(told, alone, atol=1e-5)


def test_the_same_columns_are_none_and_say_the_same(tmp_path: Path) -> None:
    rows = {**PAIRS, "query_en": PAIRS["query"], "document_en": PAIRS["document"]}
    teacher, split = loaded(folder(tmp_path / "teacher")), Dataset.from_dict(rows)
    assert task_of(rows, ("query", "document")) == task_of(rows, ())
    batch = whole(task_of(rows).prepare(split, teacher.processor, teacher.processor, training=True))
    assert torch.equal(batch.teacher["input_ids"], batch.student["input_ids"])


def test_a_teacher_reads_more_of_a_document(tmp_path: Path) -> None:
    rows = {**PAIRS, "document": ["soup of bread and cheese with salt"] * 4}
    teacher, split = loaded(folder(tmp_path / "teacher")), Dataset.from_dict(rows)
    batch = whole(task_of(rows, (), 40, max_length=7).prepare(split, teacher.processor, teacher.processor, training=True))
    assert max(map(len, tokens(batch.student))) == 7
    assert tokens(batch.teacher)[0] == teacher.processor(rows["query"][0], rows["document"][0])["input_ids"]


def test_candidates_are_parted_and_merged_with_what_a_teacher_reads_of_them() -> None:
    rows = {**PAIRS, "query": ["q"] * 4, "query_en": ["e"] * 4}
    split = Dataset.from_dict(rows)
    form = Form("pairs", ("query", "document"), "label")
    parts = read(form, split, range(4), training=True, most=3, theirs=("query_en", "document_en"))
    assert [len(one.names) for one in parts] == [2, 2]
    told = dict(zip(PAIRS["document"], PAIRS["document_en"]))
    assert flat(parts, theirs=True)[1] == [told[one] for one in flat(parts)[1]]


@pytest.mark.parametrize(("rows", "told", "words"), [
    (PAIRS, ("query_en",), r"teacher\.data\.text: got 'query_en' in place of 'query' and 'document'"),
    (LISTS, ("query_en", "query_en"), r"expected a column for each, of texts for one of texts and of lists"),
    (PAIRS, ("query", "label"), r"teacher\.data: 'label' is the label"),
    ({**LISTS, "document_en": [["a"], ["b", "c"]]}, None,
     r"1 list of 'document_en' \(data\.train\) with more or fewer texts than in 'document': row 0"),
    ({**PAIRS, "document_en": ["a", "", "b", "c"]}, None, r"'query_en' and 'document_en' is null or empty in 1 of 4"),
])
def test_texts_that_no_teacher_can_score(rows: dict[str, Any], told: tuple[str, ...] | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        task_of(rows, told)


def test_a_folder_for_search_has_no_other_texts() -> None:
    rows = {"id": ["a", "b"], "text": ["x", "y"], "role": ["query", "document"], "relevant": [{"b": 1}, None]}
    task = Reranking(RerankingData(train="x"))
    split = Dataset.from_dict(rows)
    with pytest.raises(DataError, match=r"data\.train is a folder for search, whose texts have no others"):
        task.taught_from({"text": ("text",)}, {"train": split})


def test_unlabelled_candidates_need_both() -> None:
    task = task_of(LISTS)
    pool = Dataset.from_dict({name: LISTS[name] for name in LISTS if name != "label"})
    assert task.unlabelled(pool, {}).column_names == ["query", "document", "query_en", "document_en"]
    assert set(task.beside(Dataset.from_dict(LISTS)).column_names) == set(LISTS)
    with pytest.raises(DataError, match=r"which column is 'document_en'\?"):
        task.unlabelled(pool.remove_columns("document_en"), {})
    wrong = pool.remove_columns("document_en").add_column("document_en", [["a"], ["b", "c"]])
    with pytest.raises(DataError, match="with more or fewer texts"):
        task.usable(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "dense"])
def test_a_run_whose_teacher_reads_other_documents(tmp_path: Path, cache: str) -> None:
    """What answers a query repeats it in what the teacher reads, and is noise to its student."""
    files = {}
    for seed, split in enumerate(("train", "validation", "test")):
        some, rows = sentences(60, seed), []
        for number, query in enumerate(some[:24]):
            rows += [{"query": query, "text": some[24 + number], "whole": f"{query} bread bread bread", "label": 1},
                     {"query": query, "text": some[25 + number], "whole": "of of of", "label": 0}]
        files[split] = lines(tmp_path / f"{split}.jsonl", rows)
    run = stilla.distill({
        "task": "reranking", "data": {**files, "text": ["query", "text"], "score": "label"},
        "teacher": {"model": folder(tmp_path / "start"), "data": {"text": ["query", "whole"]},
                    "train": {"epochs": 30, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"}},
        "student": {"layers": 2}, "distill": {"max_steps": 4, "batch_size": 8, "precision": "float32"}, "cache": cache,
        "evaluate": {"resamples": 100, "speed": False}, "output": str(tmp_path / "run")})
    assert run.scores.teacher[run.scores.metric] == 1.0
    assert run.scores.student[run.scores.metric] < 1.0
