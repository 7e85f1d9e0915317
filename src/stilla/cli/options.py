"""The options and arguments that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


def _given(name: str, metavar: str, words: str) -> Any:
    return typer.Option(name, metavar=metavar, show_default=False, help=words)


def _argument(metavar: str, words: str) -> Any:
    return typer.Argument(metavar=metavar, show_default=False, help=words)


Several = list[str] | None

Arguments = Annotated[Several, _argument("RECIPE KEY=VALUE", "The recipe file, then its fields: distill.epochs=1.")]
Task = Annotated[str | None, _given("--task", "NAME", "What the model does (`stilla list tasks`).")]
OfTask = Annotated[str | None, _given("--task", "NAME", "Of a recipe's fields: those that this task takes.")]
Teacher = Annotated[Several, _given("--teacher", "MODEL", "A folder or Hugging Face name; or a field of it: train={}.")]
Student = Annotated[Several, _given("--student", "SIZE", "layers=3, or just 3; or a folder or Hugging Face name.")]
Data = Annotated[Several, _given("--data", "FILE", "A file, folder or Hugging Face dataset; or a field: label=stars.")]
Output = Annotated[str | None, _given("--output", "FOLDER", "The run folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Throw the run away that is in the run folder.")]
WeakTeacher = Annotated[
    bool, typer.Option("--allow-weak-teacher", help="Go on with a teacher that is no better than chance.")
]
Demo = Annotated[
    Several,
    _argument(
        "digits|text|lm KEY=VALUE",
        "Handwritten digits (the default), docstrings of Python, or a small language model; then fields of the recipe.",
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=0, help="Let so many Ray workers capture, here or on a cluster.")
]
CachePath = Annotated[str, _argument("PATH", "A cache: a folder (RUN/cache) or a URL that fsspec reaches.")]
Run = Annotated[str, _argument("RUN", "A run folder (`stilla list runs`).")]
Runs = Annotated[list[str], _argument("RUN", "Run folders.")]
PerClass = Annotated[str, typer.Option("--per-class", metavar="N,N,...", help="Labels of each class.")]
Draws = Annotated[int, typer.Option("--draws", metavar="N", min=1, max=1000, help="So many draws of each number of labels.")]
NewData = Annotated[str | None, _given("--data", "FILE", "New data with the same columns: a file or a folder.")]
Trust = Annotated[bool, typer.Option(
    "--trust-remote-code", help="Let code run that the run's recipe names, or that comes with its models.")]
Formats = Annotated[Several, _given("--format", "NAME", "onnx (the default) or int8; may be repeated.")]
Slices = Annotated[Several, _given(
    "--slices", "COLUMN", "Measure apart by the values of this column, instead of the recipe's; may be repeated.")]


class Role(StrEnum):
    STUDENT = "student"
    BASELINE = "baseline"


Exported = Annotated[Role, typer.Option(
    "--model", help="Which model: the student, or the baseline, trained on labels alone.")]
PlanPage = Annotated[Path, typer.Option("--page", metavar="FILE", help="The page to write.")]
Page = Annotated[Path, typer.Option("--output", metavar="FILE", help="The page to write.")]
RunsFolder = Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where runs are looked for.")]
Open = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
