"""Two tasks for one student: intents (CLINC150) and parts of speech (UD English EWT), MiniLM as the teacher of both.

    python -m benchmarks.several --data FOLDER --output runs/several

The teacher is fine-tuned with a head for each, its first, third and last layer become the student, and the same student is
trained on labels alone. With `--apart` every task has its own teacher, student and labels alone instead, for comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import stilla
from benchmarks import inputs
from stilla.scores import Scores


def main() -> None:
    options = _options()
    parts = _parts(options)
    if options.apart:
        for name, part in parts.items():
            recipe = {"task": part["task"], "data": part["data"]}
            _show(name, stilla.distill({**recipe, **_learning(options, options.output / name)}).scores)
        return
    recipe = {"task": "several", "data": {"parts": parts, "temperature": options.temperature}}
    scores = stilla.distill({**recipe, **_learning(options, options.output / "both")}).scores
    _show("both", scores)
    for name, one in scores.parts.items():
        _show(name, one)


def _parts(options: argparse.Namespace) -> dict[str, Any]:
    clinc, english = inputs.clinc150(options.data), inputs.ud_english(options.data)
    intents = {**_files(clinc), "text": "text", "label": "intent", "limit": options.intents, "augment": "none"}
    tags = {**_files(english), "tokens": "tokens", "tags": "upos", "limit": options.tags}
    return {"intents": {"task": "text-classification", "data": intents},
            "tags": {"task": "token-classification", "data": tags}}


def _files(folder: Path) -> dict[str, Any]:
    """A part of the training data for validation: it is looked at after every epoch."""
    return {"train": str(folder / "train.parquet"), "validation": {"split": 0.05}, "test": str(folder / "test.parquet")}


def _learning(options: argparse.Namespace, output: Path) -> dict[str, Any]:
    return {
        "teacher": {"model": str(inputs.minilm()), "train": {
            "epochs": options.teacher_epochs, "learning_rate": options.teacher_rate, "dropout": options.teacher_dropout}},
        "student": {"layers": 3},
        "distill": {"epochs": options.epochs, "learning_rate": 3e-4},
        "evaluate": {"baseline": True, "speed": options.speed},
        "allow_weak_teacher": False,
        "output": str(output),
    }


def _show(name: str, scores: Scores) -> None:
    print(f"\n{name}: {scores.verdict}")
    for subject, one in scores.subjects.items():
        measured = one.quality[scores.split][scores.metric]
        print(f"  {subject:<9} {scores.metric} {measured.value:.4f} [{measured.low:.4f}, {measured.high:.4f}]")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_data_option(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/several"))
    parser.add_argument("--intents", type=int, default=3000, help="training examples of CLINC150")
    parser.add_argument("--tags", type=int, default=1500, help="training sentences of UD English EWT")
    parser.add_argument("--epochs", type=float, default=3.0, help="of student and baseline")
    parser.add_argument("--teacher-epochs", type=float, default=6.0)
    parser.add_argument("--teacher-rate", type=float, default=3e-4)
    parser.add_argument("--teacher-dropout", type=float, default=0.0, help="the model's own is 0.1")
    parser.add_argument("--temperature", type=float, default=1.0, help="of data.temperature")
    parser.add_argument("--apart", action="store_true", help="every task by itself")
    parser.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
