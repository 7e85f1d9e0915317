"""How well a small cross-encoder orders what a first search has found, with its teacher's scores and with labels alone.

    python -m benchmarks.reranking --data DATA --layers 2

XQuAD's English questions, each with those sentences of all 240 paragraphs that all-MiniLM-L6-v2 finds nearest; right is
the one in which the answer stands. The teacher is that model as a cross-encoder, trained on the labels first; students
are some of its layers (docs/reranking.md). Training, validation and test are of different articles.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import stilla
from benchmarks.embedding import SPLITS, lines
from benchmarks.inputs import add_data_option, minilm, xquad
from stilla.recipe import ModelSource
from stilla.report.table import markdown_table
from stilla.tasks.retrieval.loading import load
from stilla.tasks.retrieval.told import embed

WAYS: Mapping[str, list[dict[str, Any]]] = {
    "mse": [{"kind": "logits", "divergence": "mse"}],
    "margins": [{"kind": "ranking", "compare": "margin_mse"}],
    "lists": [{"kind": "ranking", "compare": "kl"}],
    "mse-labels": [{"kind": "logits", "divergence": "mse"}, {"kind": "labels"}],
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--layers", type=int, nargs="+", default=[2])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["mse"])
    parser.add_argument("--queries", type=int, default=784, help="of each split, at most")
    parser.add_argument("--found", type=int, default=10, help="sentences that the first search gives for a query")
    parser.add_argument("--candidates", type=int, default=5, help="of them, read together in training")
    parser.add_argument("--length", type=int, default=128, help="tokens of a pair")
    parser.add_argument("--teacher-epochs", type=float, default=3.0)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/reranking"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    search = prepared(options.data, options.output / "data", options.queries, options.found)
    teacher = str(minilm())
    for number, layers in enumerate(options.layers):
        for place, way in enumerate(options.ways):
            first = number == place == 0
            run = stilla.distill({
                "task": "reranking",
                "teacher": {"model": teacher, **({"train": {
                    "epochs": options.teacher_epochs, "learning_rate": 1e-4, "batch_size": 4}} if first else {})},
                "student": {"layers": layers},
                "data": {"train": str(search), "validation": str(search), "test": str(search), "max_length": options.length,
                         "candidates": options.candidates},
                "distill": {"epochs": options.epochs, "learning_rate": 2e-4, "batch_size": 4, "objectives": WAYS[way]},
                "evaluate": {"baseline": True, "speed": options.speed}, "allow_weak_teacher": True,
                "output": str(options.output / f"{way}-{layers}")})
            teacher = teacher if not first else str(run.folder / "teacher")  # trained once
            print(f"\n### {layers} layers, {way}\n\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")
            for name, one in run.scores.subjects.items():
                print(f"{name}: {({metric: round(value.value, 4) for metric, value in one.quality['test'].items()})}")


def prepared(data: Path | None, folder: Path, queries: int, found: int) -> Path:
    """A folder for search whose splits are judged, and searched by the vectors of all-MiniLM-L6-v2."""
    parts = {split: pq.read_table(xquad(data) / f"en-{split}.parquet").to_pylist() for split in SPLITS}
    corpus = {f"{row['paragraph_id']}.{number}": text for rows in parts.values() for row in rows
              for number, (_, text) in enumerate(sentences(row["context"]))}
    asked = {split: random.Random(0).sample(rows, min(queries, len(rows))) for split, rows in parts.items()}
    lines(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in corpus.items()])
    lines(folder / "queries.jsonl", [{"_id": row["id"], "text": row["question"]} for rows in asked.values() for row in rows])
    model = load(ModelSource(model=str(minilm())), None, None, {}, trained=True)
    documents = embed(model, [*corpus.values()], [None] * len(corpus), 256)
    for split, rows in asked.items():
        near = embed(model, [row["question"] for row in rows], [None] * len(rows)) @ documents.T
        _write(folder, split, rows, [*corpus], np.argsort(-near, axis=1)[:, :found], near)
    return folder


def sentences(paragraph: str) -> list[tuple[int, str]]:
    """Where each begins, and what it is."""
    starts = [0, *(found.end() for found in re.finditer(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", paragraph))]
    return [(start, paragraph[start:end].strip()) for start, end in zip(starts, [*starts[1:], len(paragraph)])]


def answering(row: Mapping[str, Any]) -> str:
    """The sentence in which the first answer begins."""
    place = int(row["answers"]["answer_start"][0])
    number = sum(start <= place for start, _ in sentences(row["context"])) - 1
    return f"{row['paragraph_id']}.{number}"


def _write(folder: Path, split: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], order: Any, near: Any) -> None:
    judged, run = folder / "qrels" / f"{split}.tsv", folder / "runs" / f"{split}.trec"
    for path in (judged, run):
        path.parent.mkdir(parents=True, exist_ok=True)
    judged.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{row['id']}\t{answering(row)}\t1\n" for row in rows),
                      encoding="utf-8")
    run.write_text("".join(
        f"{row['id']} Q0 {names[one]} {rank} {near[number, one]:.6f} minilm\n"
        for number, row in enumerate(rows) for rank, one in enumerate(order[number], 1)), encoding="utf-8")
    first = [names[one[0]] == answering(row) for one, row in zip(order, rows)]
    there = [answering(row) in [names[one] for one in some] for some, row in zip(order, rows)]
    print(f"{split}: the first search finds the answer first for {np.mean(first):.1%} of {len(rows)} queries, and among its "
          f"{order.shape[1]} for {np.mean(there):.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
