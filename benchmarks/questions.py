"""XQuAD's English questions: the paragraphs and the sentences in which their answers stand, and a folder for search."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.inputs import xquad

SPLITS = ("train", "validation", "test")
Row = Mapping[str, Any]


def questions(data: Path | None) -> dict[str, list[dict[str, Any]]]:
    """By split: each with its paragraph (`context`) and where its answer begins. The splits are of different articles."""
    return {split: pq.read_table(xquad(data) / f"en-{split}.parquet").to_pylist() for split in SPLITS}


def sentences(paragraph: str) -> list[tuple[int, str]]:
    """Where each begins, and what it is."""
    starts = [0, *(found.end() for found in re.finditer(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", paragraph))]
    return [(start, paragraph[start:end].strip()) for start, end in zip(starts, [*starts[1:], len(paragraph)])]


def sentences_of(rows: Sequence[Row]) -> dict[str, str]:
    """All sentences of their paragraphs, by name."""
    return {f"{row['paragraph_id']}.{number}": text for row in rows
            for number, (_, text) in enumerate(sentences(row["context"]))}


def answering(row: Row) -> str:
    """The sentence in which the first answer begins."""
    place = int(row["answers"]["answer_start"][0])
    number = sum(start <= place for start, _ in sentences(row["context"])) - 1
    return f"{row['paragraph_id']}.{number}"


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def searched(folder: Path, corpus: Mapping[str, str], asked: Mapping[str, Mapping[str, tuple[str, str]]]) -> Path:
    """A folder for search. `asked`: by split, the questions by name, each with the document that answers it."""
    lines(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in corpus.items()])
    lines(folder / "queries.jsonl", [{"_id": name, "text": question} for split in asked.values()
                                     for name, (question, _) in split.items()])
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for split, rows in asked.items():
        judged = "".join(f"{name}\t{document}\t1\n" for name, (_, document) in rows.items())
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    return folder
