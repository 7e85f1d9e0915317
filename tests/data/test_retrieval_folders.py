"""Folders for search, and what is wrong with them in words."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilla.data import sources
from stilla.errors import DataError
from tests.tasks.retrieval.setting import lines, search


def test_a_split_has_its_queries_and_all_documents(tmp_path: Path) -> None:
    path = Path(search(tmp_path / "s", documents=5, queries=2))
    (path / "qrels" / "dev.tsv").write_text("q1 0 d4 3\n")  # as TREC writes them
    found = sources.read(str(path))
    assert sorted(found) == ["test", "validation"]
    assert found["test"]["role"] == ["query"] * 2 + ["document"] * 5
    assert found["test"]["id"][:3] == ["q0", "q1", "d0"]
    assert found["test"]["relevant"][0] == [{"id": "d0", "grade": 2}, {"id": "d3", "grade": 1}]
    assert found["test"]["text"][2].startswith("the ")  # the title stands before
    assert found["validation"]["relevant"][0] == [{"id": "d4", "grade": 3}]


def test_texts_may_stand_in_parquet(tmp_path: Path) -> None:
    path = Path(search(tmp_path / "s", documents=5, queries=2))
    plain = sources.read(str(path))["test"].to_list()
    for name in ("corpus", "queries"):
        rows = [json.loads(line) for line in (path / f"{name}.jsonl").read_text().splitlines()]
        pq.write_table(pa.Table.from_pylist([{**row, "lang": "en"} for row in rows]), path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"corpus.jsonl and corpus.parquet stand there both"):
        sources.read(str(path))
    for name in ("corpus", "queries"):
        (path / f"{name}.jsonl").unlink()
    assert sources.read(str(path))["test"].to_list() == plain
    (path / "qrels" / "test.tsv").write_text("q0\td9\t1\n")
    with pytest.raises(DataError, match=r"1 document is not in corpus.parquet: d9"):
        sources.read(str(path))
    (path / "corpus.parquet").write_bytes((path / "corpus.parquet").read_bytes()[:200])
    with pytest.raises(DataError, match="Parquet"):
        sources.read(str(path))


def test_judgements_of_what_is_not_there_and_ids_twice_are_refused_all_at_once(tmp_path: Path) -> None:
    path = Path(search(tmp_path / "s", documents=3, queries=1))
    lines(path / "corpus.jsonl", [{"_id": "d0", "text": "a"}, {"_id": "d0", "text": "b"}])
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td9\t1\nq7\td0\t1\n")
    with pytest.raises(DataError) as error:
        sources.read(str(path))
    said = str(error.value)
    assert "1 document is not in corpus.jsonl: d9" in said
    assert "1 query is not in queries.jsonl: q7" in said
    assert "more than once: d0" in said


@pytest.mark.parametrize(("text", "words"), [
    ("query-id\tcorpus-id\tscore\nq0\td0\tmany\n", "line 2: got"), ("q0\td0\t1\nq0\t1\n", "line 2")])
def test_lines_that_are_no_judgements_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = Path(search(tmp_path / "s", documents=3, queries=1))
    (path / "qrels" / "test.tsv").write_text(text)
    with pytest.raises(DataError, match=words):
        sources.read(str(path))


def test_without_judgements_nothing_can_be_measured(tmp_path: Path) -> None:
    path = Path(search(tmp_path / "s", documents=3, queries=1))
    (path / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match="nothing says what answers a query"):
        sources.read(str(path))
    lines(path / "corpus.jsonl", [{"id": "d0", "text": "a"}])
    (path / "qrels" / "test.tsv").write_text("q0\td0\t1\n")
    with pytest.raises(DataError, match="there is no '_id'"):
        sources.read(str(path))
