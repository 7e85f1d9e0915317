"""How well a student of all-MiniLM-L6-v2 finds the paragraph that answers a question, and what ways of teaching are worth.

    python -m benchmarks.embedding --data DATA --layers 3
    python -m benchmarks.embedding --data DATA --layers 2 --labels --seeds 3
    python -m benchmarks.embedding --data DATA --layers 2 --labels --papers --seeds 3
    python -m benchmarks.embedding --data DATA --layers 3 --ways cross --cross-encoder runs/benchmarks/reranking/mse-2/teacher

Nobody has labelled what it learns from: English sentences of Tatoeba, and paragraphs and questions of other articles of
XQuAD. Validation and test: XQuAD's questions of further articles, among all 240 paragraphs (docs/embedding.md).

`--labels` asks what labels alone are worth. Then a question has the sentence that answers it and those that the teacher finds
nearest otherwise, labels say which of them answers, and searched are all sentences of the paragraphs. The student learns its
teacher's vectors of the same questions and sentences, and of Tatoeba's. With `--papers` the questions are titles of SciTLDR's
papers, and what answers them is the paper's summary among those of all papers. `--both`: the student learns the labels too.

`--ways cross` asks what a cross-encoder's scores are worth to vectors that search: of the one that benchmarks.reranking
trains, or of any other. A question has the sentence that answers it and those that all-MiniLM-L6-v2 finds nearest otherwise,
in the articles that are learnt from. The student, some of that model's layers, learns by how much the cross-encoder finds
the answer better; its baseline, that it answers. Searched are all sentences of the paragraphs.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.inputs import add_data_option, data_set, minilm, tatoeba
from benchmarks.questions import SPLITS, answering, lines, questions, searched, sentences_of
from benchmarks.students import distil, parser, run_of, show
from stilla.recipe import ModelSource
from stilla.report.table import markdown_table
from stilla.tasks.retrieval.loading import load
from stilla.tasks.retrieval.told import embed

WAYS: dict[str, list[dict[str, Any]]] = {
    "embedding": [{"kind": "embedding"}],
    "similarities": [{"kind": "similarities"}],
}
CROSS = "cross"
COLUMNS = ("query", "positive", "negative_1", "negative_2")
"""Of a question with its candidates. Tatoeba's sentences stand in them as they come: a vector is learnt of each by itself."""


def main(arguments: list[str]) -> None:
    made = parser(__doc__, "runs/benchmarks/embedding", trains=False, layers=[3], seeds=1, threads=1, epochs=3.0,
                  learning_rate=3e-4)
    add_data_option(made)
    made.add_argument("--ways", nargs="+", choices=[*WAYS, CROSS], default=list(WAYS))
    made.add_argument("--cross-encoder", help="a folder or a name: who teaches by --ways cross")
    made.add_argument("--mined", type=int, default=7, help="sentences beside an answer, by --ways cross")
    made.add_argument("--sentences", type=int, default=20_000, help="of Tatoeba")
    made.add_argument("--labels", action="store_true", help="labels alone beside the student, searching sentences")
    made.add_argument("--papers", action="store_true", help="of --labels: titles of papers, which find their summaries")
    made.add_argument("--both", action="store_true", help="of --labels: students learn labels beside vectors")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.labels:
        found = of_papers(options.data) if options.papers else of_questions(options.data)
        train, pool, search = with_candidates(found, options.data, options.output / "candidates", options.sentences)
        data = {"train": str(train), "unlabelled": str(pool), "text": list(COLUMNS), "validation": str(search),
                "test": str(search), "max_length": 128, "limit": options.limit}
        options.output = options.output / "labels"
        if options.both:
            options.overrides = [*options.overrides, "distill.objectives=[{kind: embedding}, {kind: contrastive}]"]
        show("labels and vectors", distil(options, {"task": "embedding", "data": data}, minilm(), trained=True))
        return
    if CROSS in options.ways:
        if options.cross_encoder is None or len(options.ways) > 1:
            raise SystemExit("--ways cross: is asked by itself, and by a cross-encoder: --cross-encoder "
                             "runs/benchmarks/reranking/mse-2/teacher, which `python -m benchmarks.reranking` trains")
        train, search = with_answers(options.data, options.output / "answers")
    else:
        train, search = prepared(options.data, options.output / "data", options.sentences)
    for layers in options.layers:
        begun: Path | None = None
        for way in ["untrained", *options.ways]:
            made_of = crossed(options, train, search, layers, begun) if begun and way == CROSS else \
                recipe(options, train, search, layers, way)
            run = run_of(made_of, options.overrides)
            begun = begun or run.student
            print(f"\n### {layers} layers, {way}\n\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")


def recipe(options: argparse.Namespace, train: Path, search: Path, layers: int, way: str) -> dict[str, Any]:
    """Of students that learn from texts that nobody has labelled."""
    untrained = way == "untrained"
    folders = {split: search / split for split in SPLITS[1:]}
    measured = {split: str(place if place.is_dir() else search) for split, place in folders.items()}
    # cut and hardly trained: what the layers that are left are worth by themselves
    steps = {"max_steps": 1, "learning_rate": 1e-9} if untrained else {
        "epochs": options.epochs, "learning_rate": options.learning_rate}
    return {
        "task": "embedding", "teacher": str(minilm()), "student": {"layers": layers},
        "data": {"train": str(train), "max_length": 256, "limit": options.limit, **measured},
        "distill": {**steps, "batch_size": 64, "precision": "float32", "objectives": WAYS.get(way, WAYS["embedding"])},
        "cache": {"form": "none"} if untrained else {"form": "dense", "path": str(options.output / "cache")},
        "evaluate": {"speed": not untrained, "seeds": 1 if untrained else options.seeds},
        "export": [] if untrained else options.export, "output": str(options.output / f"{way}-{layers}")}


def crossed(options: argparse.Namespace, train: Path, search: Path, layers: int, begun: Path) -> dict[str, Any]:
    """Of students that learn a cross-encoder's scores. `begun`: what they start from."""
    negatives = {"mined": options.mined, "by": str(minilm())}
    return {
        "task": "embedding", "teacher": options.cross_encoder, "student": {"model": str(begun)},
        "data": {"train": str(train), "validation": str(search), "test": str(search), "max_length": 128,
                 "limit": options.limit, "negatives": negatives},
        "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 16,
                    "precision": "float32", "objectives": [{"kind": "margins"}]},
        "cache": {"form": "dense", "path": str(options.output / "scores")},
        "evaluate": {"speed": False, "seeds": options.seeds, "baseline": True},
        "export": options.export, "output": str(options.output / f"{CROSS}-{layers}")}


def prepared(data: Path | None, folder: Path, count: int) -> tuple[Path, Path]:
    """The texts to learn from, and a folder for search for each of validation and test."""
    parts = questions(data)
    texts = [*everyday(data, count), *dict.fromkeys(row[name] for row in parts["train"] for name in ("context", "question"))]
    train = lines(folder / "train.jsonl", [{"text": text} for text in texts])
    corpus = {row["paragraph_id"]: row["context"] for rows in parts.values() for row in rows}
    for split in SPLITS[1:]:
        searched(folder / split, corpus, {split: {row["id"]: (row["question"], row["paragraph_id"]) for row in parts[split]}})
    return train, folder


def with_answers(data: Path | None, folder: Path) -> tuple[Path, Path]:
    """Folders for search: of what is learnt, among the sentences of its articles; and of the rest, among all sentences."""
    parts = questions(data)
    asked = {split: {row["id"]: (row["question"], answering(row)) for row in rows} for split, rows in parts.items()}
    train = searched(folder / "train", sentences_of(parts["train"]), {"train": asked["train"]})
    corpus = sentences_of([row for rows in parts.values() for row in rows])
    return train, searched(folder / "search", corpus, {split: asked[split] for split in SPLITS[1:]})


@dataclass(frozen=True)
class Asked:
    """`corpus`: all that is searched, by name; `known`: what of it is learnt from; `asked`: by split, what is asked by name,
    with the name of what answers it."""

    corpus: dict[str, str]
    known: dict[str, str]
    asked: dict[str, dict[str, tuple[str, str]]]


def of_questions(data: Path | None) -> Asked:
    """Each with the sentence in which its answer stands."""
    parts = questions(data)
    asked = {split: {row["id"]: (row["question"], answering(row)) for row in rows} for split, rows in parts.items()}
    # what is wrong is taken from articles that are learnt from
    return Asked(sentences_of([row for rows in parts.values() for row in rows]), sentences_of(parts["train"]), asked)


def of_papers(data: Path | None) -> Asked:
    """Titles, each with the summary of its paper; none twice."""
    folder, taken = data_set(data, "scitldr", "allenai/scitldr: columns title, target"), set[str]()
    texts: dict[str, dict[str, str]] = {}
    asked: dict[str, dict[str, tuple[str, str]]] = {}
    for split in SPLITS:
        texts[split], asked[split] = {}, {}
        for number, paper in enumerate(pq.read_table(folder / f"{split}.parquet").to_pylist()):
            title, summary, name = paper["title"].strip(), paper["target"][0].strip(), f"{split}-{number}"
            if title and summary and not {title, summary} & taken:
                taken |= {title, summary}
                texts[split][name], asked[split][f"title-{name}"] = summary, (title, name)
    return Asked({name: text for some in texts.values() for name, text in some.items()}, texts["train"], asked)


def with_candidates(found: Asked, data: Path | None, folder: Path, count: int) -> tuple[Path, Path, Path]:
    """What is asked with candidates, texts beside it, and a folder for search."""
    asked, known = found.asked, found.known
    search = searched(folder / "search", found.corpus, {split: asked[split] for split in SPLITS[1:]})
    teacher = load(ModelSource(model=str(minilm())), None, None, {}, trained=True)
    names, documents = [*known], embed(teacher, [*known.values()], [None] * len(known))
    near = embed(teacher, [question for question, _ in asked["train"].values()], [None] * len(asked["train"])) @ documents.T
    rows = []
    for (question, right), order in zip(asked["train"].values(), np.argsort(-near, axis=1)):
        wrong = [names[one] for one in order[:len(COLUMNS)] if names[one] != right]
        rows.append(dict(zip(COLUMNS, [question, known[right], *(known[name] for name in wrong)])))
    texts = everyday(data, count)
    more = [dict(zip(COLUMNS, texts[start:start + len(COLUMNS)])) for start in range(0, len(texts), len(COLUMNS))]
    more = more if len(more[-1]) == len(COLUMNS) else more[:-1]
    return lines(folder / "train.jsonl", rows), lines(folder / "pool.jsonl", more), search


def everyday(data: Path | None, count: int) -> list[str]:
    """English sentences of Tatoeba, drawn by a fixed seed."""
    english = list(dict.fromkeys(pq.read_table(tatoeba(data) / "train.parquet")["en"].to_pylist()))
    return random.Random(0).sample(english, min(count, len(english)))


if __name__ == "__main__":
    main(sys.argv[1:])
