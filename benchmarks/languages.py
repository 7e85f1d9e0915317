"""A teacher that reads English alone, and one student that reads translations: topics in several languages, each measured.

    python -m benchmarks.languages --data SIB200
    python -m benchmarks.languages --data SIB200 --languages deu_Latn fra_Latn spa_Latn tur_Latn --personal
    python -m benchmarks.languages --data SIB200 --labelled 100

SIB-200 has every sentence in every language. The teacher (all-MiniLM-L6-v2, fine-tuned on the English topics first) reads
English for each; its student has a few of its layers, and reads the others' sentences with the teacher's English tokens.
Beside it the same on labels alone, students that have some of the labels only (`--labelled`), and parts of the student by
language (`--personal`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.inputs import add_data_option, data_set, minilm
from benchmarks.students import parser, run_of, show
from stilla.report.grouped import markdown_grouped
from stilla.report.parts import markdown_parts


def main(arguments: list[str]) -> None:
    made = parser(__doc__, "runs/benchmarks/languages", layers=[3], seeds=1, threads=1, teacher_epochs=4.0,
                  teacher_learning_rate=1e-4, epochs=4.0, learning_rate=1e-4, export=[])
    add_data_option(made)
    made.add_argument("--languages", nargs="+", default=["deu_Latn", "fra_Latn", "spa_Latn"])
    made.add_argument("--labelled", type=int, nargs="+", default=[], help="translations whose labels other students have")
    made.add_argument("--personal", action="store_true", help="also parts of the student by language")
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = data_set(options.data, "sib200", "dadelani/sib-200: columns lang, index_id, text, label")
    teacher = run_of(english(options, joined(folder, ["eng_Latn"], options.output / "english")), ()).folder / "teacher"
    data = joined(folder, options.languages, options.output / "data")
    for labelled in (None, *options.labelled):
        runs = {f"{layers} layers": run_of(translated(options, data, teacher, layers, labelled), options.overrides).scores
                for layers in options.layers}
        show(f"{'all' if labelled is None else labelled} translations labelled", runs)
        for scores in runs.values():
            print(f"{markdown_parts(scores)}\n{markdown_grouped(scores)}\n{scores.verdict}")


def joined(folder: Path, languages: list[str], target: Path) -> Path:
    """Sentences of these languages, each with its English."""
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        whole = pd.read_parquet(folder / f"{split}.parquet")
        of_english = whole[whole["lang"] == "eng_Latn"].set_index("index_id")["text"]
        some = whole[whole["lang"].isin(languages)]
        pd.DataFrame({"text": some["text"], "english": some["index_id"].map(of_english), "language": some["lang"],
                      "topic": some["label"]}).to_parquet(target / f"{split}.parquet", index=False)
    return target


def english(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """The teacher, with a student that nobody uses."""
    training = {"batch_size": 32, "precision": "float32"}
    return {
        "task": "text-classification", "data": _data(data), "student": {"layers": 1},
        "teacher": {"model": str(minilm()), "train": {
            "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate, **training}},
        "distill": {"max_steps": 1, **training}, "evaluate": {"speed": False}, "output": str(options.output / "teacher")}


def translated(
    options: argparse.Namespace, data: Path, teacher: Path, layers: int, labelled: int | None
) -> dict[str, Any]:
    """`labelled`: translations with labels, where not all have them; the teacher answers about the English of the others."""
    few = {} if labelled is None else {"limit": labelled, "unlabelled": {"rest": True}}
    personal = {"by": "language", "epochs": 3.0, "batch_size": 32, "precision": "float32"}
    return {
        "task": "text-classification", "data": {**_data(data), "limit": options.limit, **few},
        "teacher": {"model": str(teacher), "data": {"text": "english"}}, "student": {"layers": layers},
        "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 32,
                    "precision": "float32"},
        "personal": personal if options.personal else None, "export": options.export,
        "evaluate": {"baseline": True, "seeds": options.seeds, "slices": ["language"]},
        "output": str(options.output / f"run{'' if labelled is None else f'-{labelled}'}-{layers}")}


def _data(folder: Path) -> dict[str, Any]:
    return {**{split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}, "text": "text",
            "label": "topic", "max_length": 64}


if __name__ == "__main__":
    main(sys.argv[1:])
