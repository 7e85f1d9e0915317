"""How well a small cross-encoder orders what a first search has found, with its teacher's scores and with labels alone.

    python -m benchmarks.reranking --data DATA --layers 2
    python -m benchmarks.reranking --data DATA --layers 2 --labelled 100

XQuAD's English questions, each with those sentences of all 240 paragraphs that all-MiniLM-L6-v2 finds nearest; right is
the one in which the answer stands. The teacher is that model as a cross-encoder, trained on the labels first; students
are some of its layers (docs/reranking.md). Training, validation and test are of different articles. `--labelled` adds
students that have the labels of so many questions only, and their teacher's scores of the others' sentences.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import add_data_option, minilm
from benchmarks.questions import SPLITS, answering, lines, questions, searched, sentences_of
from benchmarks.students import parser, run_of, show
from stilla.recipe import ModelSource
from stilla.tasks.retrieval.loading import load
from stilla.tasks.retrieval.told import embed

WAYS: Mapping[str, list[dict[str, Any]]] = {
    "mse": [{"kind": "logits", "divergence": "mse"}],
    "margins": [{"kind": "ranking", "compare": "margin_mse"}],
    "lists": [{"kind": "ranking", "compare": "kl"}],
    "mse-labels": [{"kind": "logits", "divergence": "mse"}, {"kind": "labels"}],
}


def main(arguments: list[str]) -> None:
    made = parser(__doc__, "runs/benchmarks/reranking", layers=[2], seeds=1, threads=1, teacher_epochs=3.0,
                  teacher_learning_rate=1e-4, epochs=3.0, learning_rate=2e-4)
    add_data_option(made)
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=["mse"])
    made.add_argument("--queries", type=int, default=784, help="of each split, at most")
    made.add_argument("--found", type=int, default=10, help="sentences that the first search gives for a query")
    made.add_argument("--candidates", type=int, default=5, help="of them, read together in training")
    made.add_argument("--length", type=int, default=128, help="tokens of a pair")
    made.add_argument("--labelled", type=int, nargs="+", default=[], help="queries whose labels other students have")
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    train, search = prepared(options)
    teacher: Path | None = None
    for labelled in (None, *options.labelled):
        for way in options.ways:
            scores = {}
            for layers in options.layers:
                run = run_of(recipe(options, train, search, way, layers, labelled, teacher), options.overrides)
                teacher = teacher or run.folder / "teacher"  # trained once
                scores[f"{layers} layers"] = run.scores
            show(f"{way}, {'all' if labelled is None else labelled} labelled", scores)


def recipe(
    options: argparse.Namespace, train: Path, search: Path, way: str, layers: int, labelled: int | None, teacher: Path | None
) -> dict[str, Any]:
    """`labelled`: queries with labels, where not all have them; `teacher`: one that is trained already."""
    few = {} if labelled is None else {"limit": labelled, "unlabelled": {"rest": True}}
    training = {"batch_size": 4, "learning_rate": options.teacher_learning_rate, "epochs": options.teacher_epochs}
    return {
        "task": "reranking", "student": {"layers": layers},
        "teacher": {"model": str(minilm()), "train": training} if teacher is None else {"model": str(teacher)},
        "data": {"train": str(train), "validation": str(search), "test": str(search), "max_length": options.length,
                 "candidates": options.candidates, "limit": options.limit, **few},
        "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 4,
                    "objectives": WAYS[way]},
        "evaluate": {"baseline": True, "seeds": options.seeds, "speed": options.speed}, "export": options.export,
        "allow_weak_teacher": True,
        "output": str(options.output / f"{way}-{layers}{'' if labelled is None else f'-{labelled}'}")}


def prepared(options: argparse.Namespace) -> tuple[Path, Path]:
    """Lists to learn from, and a folder for search whose splits are judged; all found by the vectors of all-MiniLM-L6-v2."""
    parts = questions(options.data)
    corpus = sentences_of([row for rows in parts.values() for row in rows])
    asked = {split: random.Random(0).sample(rows, min(options.queries, len(rows))) for split, rows in parts.items()}
    folder = options.output / "data"
    searched(folder / "search", corpus, {split: {row["id"]: (row["question"], answering(row)) for row in asked[split]}
                                         for split in SPLITS[1:]})
    names = [*corpus]
    model = load(ModelSource(model=str(minilm())), None, None, {}, trained=True)
    documents = embed(model, [*corpus.values()], [None] * len(corpus), 256)
    listed = []
    for split, rows in asked.items():
        near = embed(model, [row["question"] for row in rows], [None] * len(rows)) @ documents.T
        order = np.argsort(-near, axis=1)[:, :options.found]
        _say(split, rows, names, order)
        if split == "train":
            found = [list(dict.fromkeys([*(names[one] for one in some), answering(row)])) for some, row in zip(order, rows)]
            listed = [{"query": row["question"], "documents": [corpus[name] for name in some],
                       "labels": [int(name == answering(row)) for name in some]} for some, row in zip(found, rows)]
            continue
        run = folder / "search" / "runs" / f"{split}.trec"
        run.parent.mkdir(parents=True, exist_ok=True)
        run.write_text("".join(
            f"{row['id']} Q0 {names[one]} {rank} {near[number, one]:.6f} minilm\n"
            for number, row in enumerate(rows) for rank, one in enumerate(order[number], 1)), encoding="utf-8")
    return lines(folder / "train.jsonl", listed), folder / "search"


def _say(split: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], order: Any) -> None:
    found = np.array([[names[one] == answering(row) for one in some] for some, row in zip(order, rows)])
    gain = (found / np.log2(np.arange(found.shape[1]) + 2)).sum(1).mean()
    print(f"{split}: the first search finds the answer first for {found[:, 0].mean():.1%} of {len(rows)} queries, and among "
          f"its {found.shape[1]} for {found.any(1).mean():.1%}; nDCG {gain:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
