"""Rows that list what answers a query and what does not, as examples that the tasks of retrieval read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from stilla import data
from stilla.data import listed
from stilla.errors import DataError
from stilla.recipe.listed import Listed
from stilla.tasks import find
from stilla.tasks.retrieval import forms, references
from tests.tasks.retrieval.setting import lines

FLAG = [{"query": "q0", "pos": ["a", "b"], "neg": ["x", "y", "z"], "pos_scores": [0.9, 0.4], "id": 7, "prompt": "find"},
        {"query": "q1", "pos": ["c"], "neg": ["y", ""], "pos_scores": [0.8], "id": 8, "prompt": "find"},
        {"query": "q2", "pos": ["d"], "neg": ["x", "z"], "pos_scores": [0.8], "id": 9, "prompt": "find"}]
TEVATRON = [{"query_id": str(row["id"]), "query": row["query"],
             "positive_passages": [{"docid": "1", "title": "", "text": text} for text in row["pos"]],
             "negative_passages": [{"docid": "2", "title": "T", "text": text} for text in row["neg"] if text]}
            for row in FLAG]
MARCO = [{"query": row["query"], "answers": ["none of these"], "query_id": row["id"],
          "passages": {"passage_text": [*row["pos"], *row["neg"]], "url": ["u"] * len(row["pos"] + row["neg"]),
                       "is_selected": [1] * len(row["pos"]) + [0] * len(row["neg"])}} for row in FLAG]


def loaded(folder: Path, rows: Any, task: str, **said: Any) -> Any:
    file = lines(folder / "t.jsonl", rows)
    section = find(task).data_section.model_validate({"train": file, "validation": file, **said})
    return section, data.load(section, seed=0)["train"]


@pytest.mark.parametrize("rows", [FLAG, TEVATRON, MARCO], ids=["flagembedding", "tevatron", "marco"])
def test_vectors_are_learnt_from_a_row_for_every_answer(
    tmp_path: Path, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    section, split = loaded(tmp_path, rows, "embedding")
    form = forms.form_of(section, split)
    title = "T " if rows is TEVATRON else ""
    assert (form.kind, form.columns) == ("answered", ("query", "positive", "negative_1"))
    assert list(zip(*forms.texts_of(form, split))) == [("q0", "a", f"{title}x"), ("q0", "b", f"{title}x"),
                                                       ("q1", "c", f"{title}y"), ("q2", "d", f"{title}x")]
    assert "3 of 6 texts that do not answer are left out: rows list 1 to 3 of them" in caplog.text


@pytest.mark.parametrize("rows", [FLAG, TEVATRON, MARCO], ids=["flagembedding", "tevatron", "marco"])
def test_a_reranker_learns_from_lists_with_grades(tmp_path: Path, rows: Any) -> None:
    section, split = loaded(tmp_path, rows, "reranking")
    task = find("reranking").understand(section, {"train": split, "validation": split})
    assert (task.form.kind, task.form.columns, task.form.score) == ("lists", ("query", "documents"), "labels")
    assert split["documents"][1] == (["c", "T y"] if rows is TEVATRON else ["c", "y"])
    assert split["labels"][:] == [[1, 1, 0, 0, 0], [1, 0], [1, 0, 0]]


def test_a_recipe_that_names_the_columns_that_lists_become_reads_the_same(tmp_path: Path) -> None:
    rows = [{"query": row["query"], "positive": row["pos"], "negative": row["neg"]} for row in FLAG]
    _, plain = loaded(tmp_path, rows, "embedding")
    section, split = loaded(tmp_path, rows, "embedding", text=["query", "positive", "negative_1"])
    assert split[:] == plain[:]
    assert forms.form_of(section, split).columns == ("query", "positive", "negative_1")


@pytest.mark.parametrize("task", ["embedding", "reranking"])
def test_a_single_answer_may_stand_beside_a_list_of_what_does_not(tmp_path: Path, task: str) -> None:
    rows = [{"query": row["query"], "positive": row["pos"][0], "negatives": row["neg"]} for row in FLAG]
    _, split = loaded(tmp_path, rows, task)
    expected = {"query": "q1", "documents": ["c", "y"], "labels": [1, 0]} if task == "reranking" else \
        {"query": "q1", "positive": "c", "negative_1": "y"}
    assert split[1] == expected


def test_what_the_recipe_names_itself_stays(tmp_path: Path) -> None:
    _, split = loaded(tmp_path, FLAG, "reranking", text=["query", "pos"], score="pos_scores")
    assert split["pos"][0] == ["a", "b"]


def test_a_query_without_an_answer_is_none_and_one_without_others_is_left_to_the_recipe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*FLAG, {**FLAG[0], "query": "q3", "pos": []}, {**FLAG[0], "query": "q4", "pos": ["e"], "neg": []}]
    caplog.set_level(logging.WARNING)
    section, split = loaded(tmp_path, rows, "embedding")
    assert "1 query without an answer is left out" in caplog.text
    assert split["query"][:] == ["q0", "q0", "q1", "q2", "q4"]
    with pytest.raises(DataError, match=r"'negative_1' .* 1 of 5"):
        find("embedding").understand(section, {"train": split, "validation": split})


def test_other_tasks_and_other_lists_are_left_alone() -> None:
    split = Dataset.from_list([{"query": "a", "pos": ["b"], "neg": ["c"]}])
    assert listed.apart(split, None) is split
    numbers = Dataset.from_list([{"query": "a", "pos": [1], "neg": [2]}])
    assert listed.apart(numbers, Listed("columns")) is numbers
    alone = Dataset.from_list([{"query": "a", "pos": ["b"]}])
    assert listed.apart(alone, Listed("lists")) is alone


def test_many_rows_keep_their_order_and_their_other_columns(tmp_path: Path) -> None:
    rows = [{"query": f"q{number}", "pos": [f"a{number}"], "neg": [f"x{number}"], "lang": "de"} for number in range(2500)]
    _, split = loaded(tmp_path, rows, "embedding")
    assert split[2345] == {"query": "q2345", "lang": "de", "positive": "a2345", "negative_1": "x2345"}


def test_all_answers_of_a_query_are_right_in_whatever_row_they_stand(tmp_path: Path) -> None:
    section, split = loaded(tmp_path, FLAG, "embedding")
    form = forms.form_of(section, split)
    places = references.references(section, form, split, [], [], None)
    assert places is not None
    assert [len(one.grades) for one in places] == [2, 2, 1, 1]
