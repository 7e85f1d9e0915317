"""How well a student of all-MiniLM-L6-v2 finds the paragraph that answers a question, and what ways of teaching are worth.

    python -m benchmarks.embedding --data DATA --layers 3

Nobody has labelled what it learns from: English sentences of Tatoeba, and paragraphs and questions of other articles of
XQuAD. Validation and test: XQuAD's questions of further articles, among all 240 paragraphs (docs/embedding.md).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import stilla
from benchmarks.inputs import add_data_option, minilm, tatoeba, xquad
from stilla.report.table import markdown_table

WAYS: dict[str, list[dict[str, Any]]] = {
    "embedding": [{"kind": "embedding"}],
    "similarities": [{"kind": "similarities"}],
}
SPLITS = ("train", "validation", "test")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--layers", type=int, nargs="+", default=[3])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sentences", type=int, default=20_000, help="of Tatoeba")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/embedding"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    train, search = prepared(options.data, options.output / "data", options.sentences)
    for layers in options.layers:
        for way in ["untrained", *options.ways]:
            # cut and hardly trained: what the layers that are left are worth by themselves
            steps = {"max_steps": 1, "learning_rate": 1e-9} if way == "untrained" else {
                "epochs": options.epochs, "learning_rate": options.learning_rate}
            run = stilla.distill({
                "task": "embedding", "teacher": str(minilm()), "student": {"layers": layers},
                "data": {"train": str(train), "validation": f"{search / 'validation'}", "test": f"{search / 'test'}",
                         "max_length": 256},
                "distill": {**steps, "batch_size": 64, "precision": "float32",
                            "objectives": WAYS.get(way, WAYS["embedding"])},
                "cache": {"form": "none" if way == "untrained" else "dense",
                          **({} if way == "untrained" else {"path": str(options.output / "cache")})},
                "evaluate": {"speed": way != "untrained"}, "export": [] if way == "untrained" else ["onnx", "int8"],
                "output": str(options.output / f"{way}-{layers}")})
            print(f"\n### {layers} layers, {way}\n\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")


def prepared(data: Path | None, folder: Path, sentences: int) -> tuple[Path, Path]:
    """The texts to learn from, and a folder for search for each of validation and test."""
    parts = {split: pq.read_table(xquad(data) / f"en-{split}.parquet").to_pylist() for split in SPLITS}
    english = list(dict.fromkeys(pq.read_table(tatoeba(data) / "train.parquet")["en"].to_pylist()))
    texts = [*random.Random(0).sample(english, min(sentences, len(english))),
             *dict.fromkeys(row[name] for row in parts["train"] for name in ("context", "question"))]
    train = lines(folder / "train.jsonl", [{"text": text} for text in texts])
    corpus = {row["paragraph_id"]: row["context"] for rows in parts.values() for row in rows}
    for split in ("validation", "test"):
        here = folder / split
        lines(here / "corpus.jsonl", [{"_id": name, "text": text} for name, text in corpus.items()])
        lines(here / "queries.jsonl", [{"_id": row["id"], "text": row["question"]} for row in parts[split]])
        judged = here / "qrels" / f"{split}.tsv"
        judged.parent.mkdir(parents=True, exist_ok=True)
        judged.write_text("query-id\tcorpus-id\tscore\n" + "".join(
            f"{row['id']}\t{row['paragraph_id']}\t1\n" for row in parts[split]), encoding="utf-8")
    return train, folder


def lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
