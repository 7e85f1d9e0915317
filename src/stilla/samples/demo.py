"""The demos: small real data, a teacher with random weights and a recipe, laid ready in a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from string import Template

from stilla.recipe.yaml import flow
from stilla.runtime.files import write_whole
from stilla.runtime.quiet import quiet_libraries


def prepare(name: str, folder: Path) -> Path:
    """Write `data/`, `start/` (the teacher before training) and `demo.yaml` into the folder; returns the recipe.

    What is there already is kept: the recipe may have been edited, and the rest is the same every time. Data and teacher
    appear whole or not at all.
    """
    data, start, recipe = folder / "data", folder / "start", folder / "demo.yaml"
    if not recipe.is_file():  # first: by it the folder is known as a demo's
        folder.mkdir(parents=True, exist_ok=True)
        shipped = resources.files("stilla.samples").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        places = {"data": data, "teacher": start, "output": folder}
        write_whole(recipe, Template(shipped).substitute({key: flow(str(path)) for key, path in places.items()}))
    if not start.is_dir():
        quiet_libraries()
        new = folder / ".laid.new"
        for old in (new, data):  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
        DEMOS[name](new / "data", new / "start")
        (new / "data").rename(data)
        (new / "start").rename(start)
        new.rmdir()
    return recipe


def _digits(data: Path, start: Path) -> None:
    from stilla.samples.digits import digits, digits_teacher

    digits(data)
    digits_teacher(start)


def _text(data: Path, start: Path) -> None:
    from datasets import Dataset

    from stilla.samples.docstrings import docstrings, docstrings_teacher

    docstrings(data)
    train = Dataset.from_parquet(str(data / "train.parquet"), keep_in_memory=True)
    docstrings_teacher(start, list(train["text"]))


def _lm(data: Path, start: Path) -> None:
    from datasets import Dataset

    from stilla.samples.library import functions, functions_teacher

    functions(data)
    train = Dataset.from_parquet(str(data / "train.parquet"), keep_in_memory=True)
    functions_teacher(start, list(train["text"]))


DEMOS: Mapping[str, Callable[[Path, Path], None]] = {"digits": _digits, "text": _text, "lm": _lm}
