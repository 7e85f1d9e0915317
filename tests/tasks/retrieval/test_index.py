"""A student for queries among the teacher's vectors of documents: what is searched, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stilla
from stilla.check import check
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.recipe.file import from_options
from stilla.signals import Side
from stilla.tasks.retrieval import ranking
from stilla.tasks.retrieval.told import embed
from tests.tasks.retrieval.setting import folder, lines, loaded, scored, search, texts, triples
from tests.tasks.retrieval.test_embedding import bound
from tests.tasks.retrieval.test_runs import recipe


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_queries_of_the_student_are_searched_among_the_documents_of_the_teacher(tmp_path: Path) -> None:
    prompts = {"query": "the ", "document": "new "}
    teacher, student = (loaded(folder(tmp_path / str(seed), seed=seed, prompts=prompts)) for seed in (0, 1))
    place = Path(search(tmp_path / "search"))
    said = {"train": texts(tmp_path / "t.jsonl"), "test": str(place)}
    asked, documents = _rows(place / "queries.jsonl"), _rows(place / "corpus.jsonl")
    queries = [row["text"] for row in asked]
    whole = [f"{row['title']} {row['text']}" for row in documents]
    found = {}
    for whose in ("student", "teacher"):
        task, splits = bound(said, documents=whose)
        task = task.adapted_to(teacher).between(student, teacher)
        prepared = task.prepare(splits["test"], student.processor, teacher.processor, training=False)
        exam = task.exam()
        both = {"teacher": Asked(teacher.model, Side.TEACHER), "student": Asked(student.model)}
        found[whose] = examine(exam, both, prepared, batch_size=7)
        index = student if whose == "student" else teacher
        by_hand = ranking.rankings(embed(student, queries, ["query"] * len(queries)).astype(np.float32),
                                   embed(index, whole, ["document"] * len(whole)).astype(np.float32),
                                   [row["_id"] for row in documents], [row["_id"] for row in asked])
        for one, other in zip(found[whose]["student"].given, by_hand, strict=True):
            assert one["documents"] == other["documents"]
            np.testing.assert_allclose(one["similarities"], other["similarities"], atol=1e-5)
    for one, other in zip(found["student"]["teacher"].given, found["teacher"]["teacher"].given, strict=True):
        assert one["documents"] == other["documents"]
    assert [one["documents"] for one in found["student"]["student"].given] != [
        one["documents"] for one in found["teacher"]["student"].given]


def test_answers_beside_queries_are_the_teachers_too(tmp_path: Path) -> None:
    teacher, student = (loaded(folder(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    file = triples(tmp_path / "t.jsonl", 12)
    task, splits = bound({"train": file, "test": file}, documents="teacher")
    task = task.adapted_to(teacher).between(student, teacher)
    prepared = task.prepare(splits["test"], student.processor, teacher.processor, training=False)
    answers = examine(task.exam(), {"student": Asked(student.model)}, prepared)["student"]
    rows = _rows(Path(file))
    everything = [*dict.fromkeys(row[name] for name in ("positive", "negative") for row in rows)]
    by_hand = ranking.rankings(embed(student, [row["query"] for row in rows], ["query"] * len(rows)).astype(np.float32),
                               embed(teacher, everything, ["document"] * len(everything)).astype(np.float32),
                               [str(number) for number in range(len(everything))], None)
    assert [one["documents"] for one in answers.given] == [one["documents"] for one in by_hand]


def test_an_index_of_nothing_and_vectors_of_other_widths_are_refused(tmp_path: Path) -> None:
    plain = {"train": texts(tmp_path / "t.jsonl"), "validation": scored(tmp_path / "v.jsonl", most=1)}
    with pytest.raises(DataError, match=r"data\.documents: got 'teacher', and no split that is measured has queries"):
        bound(plain, documents="teacher")
    task, _ = bound({**plain, "test": search(tmp_path / "search")}, documents="teacher")
    teacher, other = loaded(folder(tmp_path / "a")), loaded(folder(tmp_path / "b", width=16))
    with pytest.raises(CompatibilityError, match=r"the student's vectors have 16 numbers, and the teacher's, .* 32"):
        task.adapted_to(teacher).between(other, teacher)
    narrow, _ = bound({**plain, "test": str(tmp_path / "search")}, documents="teacher", dimensions=8)
    with pytest.raises(CompatibilityError, match=r"data\.dimensions: got 8, and data\.documents: teacher keeps "
                                                 r"vectors of 32"):
        narrow.adapted_to(teacher)


def test_labels_alone_are_not_searched_among_the_teachers_documents(tmp_path: Path) -> None:
    asked: dict[str, Any] = recipe(tmp_path, "triples", data={"test": search(tmp_path / "search"), "documents": "teacher"},
                                   evaluate={"baseline": True})
    drawn = {**asked["distill"], "objectives": [{"kind": "interactive"}]}
    problems = check(from_options({**asked, "distill": drawn})).problems
    assert len(problems) == 1, problems
    assert "evaluate.baseline: queries are searched among the teacher's vectors (data.documents: teacher)" in problems[0]


@pytest.mark.slow
def test_a_run_keeps_the_index_and_its_folder_says_so(tmp_path: Path) -> None:
    asked: dict[str, Any] = recipe(tmp_path, data={"test": search(tmp_path / "search"), "documents": "teacher"})
    apart = {**asked["distill"], "objectives": [{"kind": "similarities"}]}
    problems = check(from_options({**asked, "distill": apart})).problems
    wanted = r"no objective draws the student's into their space.*Add `embedding`"
    assert any(re.search(wanted, one) for one in problems), problems
    run = stilla.distill(asked)
    assert "keep the teacher's index, and let this model read what is asked" in (run.student / "README.md").read_text()
    assert set(run.scores.student.quality) == {"validation", "test"}  # scored pairs beside it are the student's own


def test_what_is_searched_by_keys_of_its_own_stays_whole(tmp_path: Path) -> None:
    """Two documents of one text are two."""
    place = Path(search(tmp_path / "search", documents=6, queries=2))
    rows = _rows(place / "corpus.jsonl")
    lines(place / "corpus.jsonl", [*rows, {**rows[0], "_id": "again"}])
    teacher = loaded(folder(tmp_path / "teacher"))
    task, splits = bound({"train": texts(tmp_path / "t.jsonl"), "test": str(place)}, documents="teacher")
    prepared = task.adapted_to(teacher).prepare(splits["test"], teacher.processor, None, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher.model)}, prepared)["teacher"]
    assert {"d0", "again"} <= {*answers.given[0]["documents"]}
