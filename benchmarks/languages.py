"""A teacher that reads English alone, and one student that reads translations: topics in several languages, each measured.

    python -m benchmarks.languages --data SIB200
    python -m benchmarks.languages --data SIB200 --languages deu_Latn fra_Latn spa_Latn tur_Latn --personal

SIB-200 has every sentence in every language. The teacher (all-MiniLM-L6-v2, fine-tuned on the English topics first) reads
English for each; its student has a few of its layers, and reads the others' sentences with the teacher's English tokens.
Beside it the same on labels alone, and (`--personal`) parts of the student by language.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import stilla
from benchmarks.inputs import add_data_option, data_set, minilm
from stilla.report.grouped import markdown_grouped
from stilla.report.parts import markdown_parts
from stilla.report.table import markdown_facts, markdown_table


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--languages", nargs="+", default=["deu_Latn", "fra_Latn", "spa_Latn"])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--teacher-epochs", type=float, default=4.0)
    parser.add_argument("--personal", action="store_true", help="also parts of the student by language")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/languages"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = data_set(options.data, "sib200", "dadelani/sib-200: columns lang, index_id, text, label")
    teacher = stilla.distill(english(options, joined(folder, ["eng_Latn"], options.output / "english")))
    run = stilla.distill(translated(options, joined(folder, options.languages, options.output / "data"),
                                    str(teacher.folder / "teacher")))
    print(f"\n{markdown_facts(run.scores)}\n{markdown_table(run.scores)}\n{markdown_parts(run.scores)}\n"
          f"{markdown_grouped(run.scores)}\n{run.scores.verdict}")


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
    training = {"batch_size": 32, "precision": "float32", "learning_rate": 1e-4}
    return {
        "task": "text-classification", "data": _data(data), "student": {"layers": 1},
        "teacher": {"model": str(minilm()), "train": {"epochs": options.teacher_epochs, **training}},
        "distill": {"max_steps": 1, **training}, "evaluate": {"speed": False}, "output": str(options.output / "teacher")}


def translated(options: argparse.Namespace, data: Path, teacher: str) -> dict[str, Any]:
    training = {"epochs": options.epochs, "batch_size": 32, "precision": "float32", "learning_rate": 1e-4}
    personal = {"by": "language", "epochs": 3.0, "batch_size": 32, "precision": "float32"}
    return {
        "task": "text-classification", "data": _data(data), "teacher": {"model": teacher, "data": {"text": "english"}},
        "student": {"layers": options.layers}, "distill": training, "personal": personal if options.personal else None,
        "evaluate": {"baseline": True, "seeds": options.seeds, "slices": ["language"], "speed": False},
        "output": str(options.output / "run")}


def _data(folder: Path) -> dict[str, Any]:
    return {**{split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}, "text": "text",
            "label": "topic", "max_length": 64}


if __name__ == "__main__":
    main(sys.argv[1:])
