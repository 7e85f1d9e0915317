"""One teacher, students of several depths, each with its baseline: Stilla runs, and their scores as tables.

The deepest student's run trains the teacher; the others take it from that run's folder. They are runs like any
other: the same command again continues what was stopped and skips what is finished.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import stilla
from benchmarks.tables import differences, qualities, spreads
from stilla import Run, Scores
from stilla.errors import StillaError
from stilla.stages.training import Interrupted


def parser(
    description: str | None, output: str, *, trains: bool = True, **defaults: Any
) -> argparse.ArgumentParser:
    """What all of these benchmarks can be told; `trains`: their teachers first; `defaults` for what differs between them."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, default=Path(output), help="a folder for the runs")
    if "layers" in defaults:
        made.add_argument("--layers", type=int, nargs="+", help="depths of the students")
    made.add_argument("--seeds", type=int, default=3, help="students and baselines of each depth")
    made.add_argument("--threads", type=int, default=os.cpu_count())
    if trains:
        made.add_argument("--teacher-epochs", type=float)
        made.add_argument("--teacher-learning-rate", type=float)
    made.add_argument("--epochs", type=float, help="of students and baselines")
    made.add_argument("--learning-rate", type=float, help="of students and baselines")
    made.add_argument("--export", nargs="*", default=["onnx", "int8"])
    made.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help=(
        "any field of the recipes: data.augment=light distill.batch_size=64"))
    made.add_argument("--limit", type=int, help="only so many training examples, to try it out")
    made.set_defaults(**defaults)
    return made


def distil(
    options: argparse.Namespace, base: Mapping[str, Any], teacher: Path,
    student: Callable[[int], Mapping[str, Any]] = lambda depth: {"layers": depth},
    more: Path | None = None, *, trained: bool = False,
) -> dict[str, Scores]:
    """The runs' scores by student. `base`: task and data of the recipe; `teacher`: to be trained first, if not `trained`;
    `student`: of each depth, as a recipe says it; `more`: examples that the teacher alone learns from, in the place of the
    students'."""
    torch.set_num_threads(options.threads)
    scores: dict[str, Scores] = {}
    depths = sorted(options.layers, reverse=True)
    for depth in depths:
        source: dict[str, Any] = {"model": str(teacher if trained else options.output / name_of(depths[0]) / "teacher")}
        if depth == depths[0] and not trained:
            source = {"model": str(teacher), "train": {
                "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate,
                **({} if more is None else {"data": str(more)})}}
        recipe = {
            **base, "teacher": source, "student": student(depth), "export": options.export,
            "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate},
            "evaluate": {"baseline": True, "seeds": options.seeds}, "output": str(options.output / name_of(depth)),
        }
        scores[name_of(depth).replace("-", " ")] = run_of(recipe, options.overrides).scores
    return scores


def run_of(recipe: Mapping[str, Any], overrides: Sequence[str]) -> Run:
    """The finished run of a recipe, made, continued or found.

    Raises:
        SystemExit: it cannot be made, or was stopped; why.
    """
    try:
        return stilla.distill(None, *overrides, **recipe)
    except StillaError as error:
        raise SystemExit(str(error)) from error
    except Interrupted as stopped:
        raise SystemExit(f"{stopped}; the same command continues") from stopped


def name_of(depth: int) -> str:
    return f"{depth}-layers" if depth > 1 else "1-layer"


def show(title: str, scores: Mapping[str, Scores]) -> None:
    """The tables on standard output, everything else went to standard error."""
    one = next(iter(scores.values()))
    print(f"\n{title}: {one.split} data, {one.examples[one.split]:,} examples\n")
    for table in (qualities(scores), differences(scores), spreads(scores)):
        print(f"{table}\n")
