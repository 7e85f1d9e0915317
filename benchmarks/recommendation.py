"""How much of a recommender of two layers, 96 wide, is left in one of 16, and what ways of teaching it are worth.

    python -m benchmarks.recommendation --data DATA
    python -m benchmarks.recommendation --data DATA --limit 10000 --seeds 3 --ways "labels and logits" --personal

Visits to areas of a web site (msweb), held out by users: each is measured on the area that he visited last, among all.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.inputs import add_data_option, data_set
from benchmarks.students import parser, run_of
from stilla.report.grouped import markdown_grouped
from stilla.report.table import markdown_table
from stilla.scores import Scores

WAYS: dict[str, list[dict[str, Any]]] = {
    "labels and logits": [{"kind": "labels", "weight": 0.3}, {"kind": "logits", "temperature": 2.0, "weight": 0.7}],
    "logits": [{"kind": "logits", "temperature": 1.0}],
    "labels and lists": [{"kind": "labels", "weight": 0.5}, {"kind": "listwise", "weight": 0.5}],
    "labels and union": [{"kind": "labels", "weight": 0.3},
                         {"kind": "logits", "temperature": 2.0, "union": 20, "weight": 0.7}],
}
PERSONAL = {"by": "segment", "at_least": 400, "epochs": 5.0, "learning_rate": 3e-3, "lora": {"r": 4}}
"""A part of the student for everybody who began with the same area."""
METRICS = ("ndcg_at_10", "hr_at_10", "mrr", "coverage_at_10")


def main(arguments: list[str]) -> None:
    made = parser(__doc__, "runs/benchmarks/recommendation", seeds=1, threads=1, teacher_epochs=6.0,
                  teacher_learning_rate=1e-3, epochs=8.0, learning_rate=3e-3, export=["onnx"])
    add_data_option(made)
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    made.add_argument("--width", type=int, default=16, help="of the student")
    made.add_argument("--personal", action="store_true", help="also parts of the first way's students, by the area that "
                      "users began with")
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = data_set(options.data, "msweb", "Anonymous Microsoft Web Data of UCI: columns user_id, item_id, in order")
    folder = with_segments(folder, options.output / "data") if options.personal else folder
    teacher: Any = None
    for way in options.ways:
        run = run_of(recipe(options, folder, way, teacher), options.overrides)
        teacher = teacher or str(run.folder / "teacher")
        print(f"\n### {way}\n\n{markdown_table(run.scores)}\n\n{_quality(run.scores)}\n\n{markdown_grouped(run.scores)}\n"
              f"{run.scores.verdict}\n", flush=True)


def recipe(options: argparse.Namespace, folder: Path, way: str, teacher: Any) -> dict[str, Any]:
    """`teacher`: of the way before; None trains it."""
    common = {"batch_size": 256, "precision": "float32"}
    training = {"epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate, **common}
    first = {"model": "llama", "train": training,
             "config": {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
                        "intermediate_size": 192, "attention_dropout": 0.1}}
    width = options.width
    return {
        "task": "recommendation", "teacher": teacher or first,
        "data": {**{split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")},
                 "names": str(folder / "items.parquet"), "users": "apart", "max_length": 20, "limit": options.limit},
        "student": {"config": {"hidden_size": width, "num_hidden_layers": 1, "intermediate_size": 2 * width,
                               "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": width // 2}},
        "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "objectives": WAYS[way], **common},
        "evaluate": {"baseline": way == options.ways[0], "seeds": options.seeds, "speed": options.speed},
        "export": options.export if way == options.ways[0] else [],
        # areas stand in hardly any order: a guard cannot tell stored answers from those of the next row
        "cache": {"form": "none"},
        "personal": {**PERSONAL, **common} if options.personal and way == options.ways[0] else None,
        "output": str(options.output / way.replace(" ", "-"))}


def with_segments(folder: Path, target: Path) -> Path:
    """The same data with the area that every user began with, by its name."""
    target.mkdir(parents=True, exist_ok=True)
    names = pd.read_parquet(folder / "items.parquet").set_index("item_id")["title"]
    for split in ("train", "validation", "test"):
        events = pd.read_parquet(folder / f"{split}.parquet")
        first = events.groupby("user_id", sort=False)["item_id"].transform("first")
        events.assign(segment=first.map(names)).to_parquet(target / f"{split}.parquet")
    shutil.copyfile(folder / "items.parquet", target / "items.parquet")
    return target


def _quality(scores: Scores) -> str:
    lines = [["", *METRICS], ["---"] * (len(METRICS) + 1)]
    lines += [[name, *(str(one.quality[scores.split][metric]) for metric in METRICS)]
              for name, one in scores.subjects.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
