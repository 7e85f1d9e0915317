"""A model that reads English alone, and a student that puts German sentences where the English ones lie.

    python -m benchmarks.translations --data TATOEBA_EN_DE

Everyday sentences and their translations. The teacher (all-MiniLM-L6-v2) reads the English of every example; the student,
some of its layers with its English tokens, reads the German, and in as many examples the English, as in
recipes/several-languages.yaml. Beside it the same student that learns from the pairs alone which sentence translates which,
of those of a step, and one that learns both. All are measured by finding the translation of each test sentence among those
of all, both ways.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.inputs import add_data_option, minilm, tatoeba
from benchmarks.students import parser, run_of
from benchmarks.tables import markdown
from stilla.scores import Scores

WAYS = ("vectors", "pairs", "both")
METRICS = ("ndcg_at_10", "mrr_at_10", "recall_at_10")


def main(arguments: list[str]) -> None:
    made = parser(__doc__, "runs/benchmarks/translations", trains=False, layers=[3], seeds=1, threads=1, epochs=3.0,
                  learning_rate=3e-4)
    add_data_option(made)
    made.add_argument("--pairs", type=int, default=20_000, help="sentences with their translations, to learn from")
    made.add_argument("--words", type=int, default=12, help="the longest sentence in English")
    made.add_argument("--measured", type=int, default=1_000, help="pairs to validate, and to test")
    made.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    data = options.output / "data"
    if not (data / "back.parquet").is_file():
        write(options, data)
    for layers in options.layers:
        found = {way: run_of(recipe(options, data, way, layers), options.overrides).scores for way in options.ways}
        print(f"\n{layers} layers\n\n{table(found)}\n", flush=True)


def write(options: argparse.Namespace, folder: Path) -> None:
    """Sentences by themselves, each with its English, and pairs; what is measured is there both ways."""
    folder.mkdir(parents=True, exist_ok=True)
    source = tatoeba(options.data)
    for split, count in (("train", options.pairs), ("validation", options.measured), ("test", options.measured)):
        whole = pd.read_parquet(source / f"{split}.parquet", columns=["en", "de"]).drop_duplicates("en").drop_duplicates("de")
        short = whole[whole["en"].str.split().str.len() <= options.words].reset_index(drop=True)
        some = short.iloc[random.Random(0).sample(range(len(short)), k=min(count, len(short)))]
        pairs = pd.DataFrame({"query": some["de"], "positive": some["en"]})
        pairs.assign(english=some["en"]).to_parquet(folder / f"{split}.parquet", index=False)
        if split == "train":
            both = {"text": [*some["de"], *some["en"]], "english": [*some["en"], *some["en"]]}
            pd.DataFrame(both).to_parquet(folder / "sentences.parquet", index=False)
        if split == "test":
            back = pd.DataFrame({"query": some["en"], "positive": some["de"], "english": some["en"]})
            back.to_parquet(folder / "back.parquet", index=False)


def recipe(options: argparse.Namespace, data: Path, way: str, layers: int) -> dict[str, Any]:
    """`vectors`: of the German, and of the English, those that the teacher gives the English. An epoch of pairs has as many
    steps as one of single sentences: half of its batch are the others' translations."""
    measured = {"validation": str(data / "validation.parquet"), "test": str(data / "test.parquet"),
                "shifted": {"back": str(data / "back.parquet")}, "limit": options.limit, "max_length": 48}
    pairs = {**measured, "train": str(data / "train.parquet"), "text": ["query", "positive"]}
    ways: dict[str, dict[str, Any]] = {
        "vectors": {"data": {**measured, "train": str(data / "sentences.parquet"), "text": "text"},
                    "teacher": {"model": str(minilm()), "data": {"text": "english"}},
                    "distill": {"objectives": [{"kind": "embedding"}], "batch_size": 64}},
        "pairs": {"data": pairs, "teacher": {"model": str(minilm())},
                  "distill": {"objectives": [{"kind": "contrastive"}], "batch_size": 32}},
        "both": {"data": pairs, "teacher": {"model": str(minilm()), "data": {"text": ["english", "english"]}},
                 "distill": {"objectives": [{"kind": "embedding"}, {"kind": "contrastive"}], "batch_size": 32}},
    }
    one = ways[way]
    return {**one, "task": "embedding", "student": {"layers": layers}, "export": options.export if way == "vectors" else [],
            "distill": {**one["distill"], "epochs": options.epochs, "learning_rate": options.learning_rate},
            "evaluate": {"baseline": False, "seeds": options.seeds, "speed": options.speed},
            "output": str(options.output / f"{way}-{layers}")}


def table(found: dict[str, Scores]) -> str:
    """A line for each way and its files: found in English, found in German, and the first metric of each seed."""
    rows = []
    for way, scores in found.items():
        for name, subject in scores.subjects.items():
            if name == "teacher" and way != next(iter(found)):
                continue
            rows.append([name if name == "teacher" else f"{way}, {name}",
                         *(cell for split in (scores.split, "shifted.back") for cell in _cells(subject.quality.get(split)))])
    head = [f"{metric}, {where}" for where in ("to English", "to German") for metric in METRICS]
    return markdown(["", *head], rows)


def _cells(quality: Any) -> Sequence[str]:
    if quality is None:
        return ["–"] * len(METRICS)
    first, *others = (quality[metric] for metric in METRICS)
    return [f"{first.value:.3f} [{first.low:.3f}, {first.high:.3f}]", *(f"{one.value:.3f}" for one in others)]


if __name__ == "__main__":
    main(sys.argv[1:])
