"""A teacher that adapts to its student (`distill.adapt`, MetaDistil) beside the plain recipe, on a few handwritten digits.

    python -m benchmarks.adapting
    python -m benchmarks.adapting --rates 1e-5 1e-4 1e-3 --labels 20

A small Vision Transformer has learnt all training pictures; one of its layers learns from a few of them: from their labels
alone, with the teacher as it is, and with one that is adapted at some rates. The tenth of the labels that is then the quiz is
not learnt from; what that costs by itself, the plain recipe with a tenth of the labels less shows. Test accuracy, and what a
training takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.students import run_of
from stilla import Scores
from stilla.samples.digits import digits, digits_teacher


def main(arguments: list[str]) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    data = options.output / "data"
    if not data.is_dir():
        digits(data)
    teacher = options.teacher or _taught(options, data)
    fewer = round((1 - options.quiz) * options.labels)
    ways: dict[str, dict[str, Any]] = {"plain": {}, f"plain, {fewer} labels of each digit": {"labels": fewer}}
    ways |= {f"adapted at {rate:g}": {"adapt": {"learning_rate": rate, "quiz": options.quiz}} for rate in options.rates}
    print(f"{options.labels} labels of each digit, {options.seeds} seeds, test accuracy\n")
    print("| way | student | its teacher, before and after | seconds of the processor |\n|---|---:|---:|---:|")
    for way, how in ways.items():
        scores = run_of(_recipe(options, data, teacher, way, **how), ()).scores
        if "baseline" in scores.subjects:
            print(f"| labels alone | {_quality(scores, 'baseline')} | | {_seconds(scores, 'baseline')} |")
        adapted = scores.adapted
        beside = "" if adapted is None else f"{adapted.before:.3f}, {adapted.after:.3f} (validation)"
        print(f"| {way} | {_quality(scores, 'student')} | {beside} | {_seconds(scores, 'student')} |", flush=True)


def _taught(options: argparse.Namespace, data: Path) -> Path:
    start, output = options.output / "start", options.output / "teacher"
    if not start.is_dir():
        digits_teacher(start)
    train = {"epochs": 20, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 0.05, "precision": "float32"}
    return run_of({
        "task": "image-classification", "data": _files(data), "teacher": {"model": str(start), "train": train},
        "student": {"layers": 1}, "distill": {"max_steps": 1, "precision": "float32"},
        "evaluate": {"speed": False, "resamples": 100}, "output": str(output)}, ()).folder / "teacher"


def _recipe(
    options: argparse.Namespace, data: Path, teacher: Path, way: str, labels: int | None = None,
    adapt: dict[str, Any] | None = None,
) -> dict[str, Any]:
    first = labels is None and adapt is None  # whose baseline is that of all
    return {
        "task": "image-classification", "data": {**_files(data), "limit": {"per_class": labels or options.labels}},
        "teacher": {"model": str(teacher)}, "student": {"layers": 1},
        "distill": {"epochs": options.epochs, "batch_size": 16, "learning_rate": 1e-3, "precision": "float32", "adapt": adapt,
                    "trainer": {"eval_strategy": "no"}},
        "evaluate": {"baseline": first, "seeds": options.seeds, "speed": False},
        "output": str(options.output / way.replace(", ", "-").replace(" ", "-"))}


def _files(data: Path) -> dict[str, Any]:
    return {**{split: str(data / f"{split}.parquet") for split in ("train", "validation", "test")}, "augment": "none"}


def _quality(scores: Scores, subject: str) -> str:
    one = scores.subjects[subject].quality[scores.split][scores.metric]
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _seconds(scores: Scores, stage: str) -> str:
    return f"{scores.spent[stage]['processor_seconds']:.1f}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-5, 1e-4, 1e-3], help="of the teacher's steps")
    parser.add_argument("--labels", type=int, default=10, help="of each digit")
    parser.add_argument("--quiz", type=float, default=0.1, help="share of them by which the teacher is adapted")
    parser.add_argument("--epochs", type=float, default=30.0, help="over the few labels")
    parser.add_argument("--teacher", type=Path, help="one that has learnt the digits; by default it is trained first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/adapting"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
