"""The demos: small real data, a teacher with random weights and a recipe, laid ready in a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import pyarrow.parquet as pq

from stilla.recipe.yaml import flow
from stilla.runtime.files import write_whole
from stilla.runtime.quiet import quiet_libraries


def prepare(name: str, folder: Path) -> Path:
    """Write `data/`, `start/` (the teacher before training) and `demo.yaml` into the folder; returns the recipe.

    In all of them a teacher has seen many examples with their labels, and whoever makes the student has a few of these, and
    the others without: what distillation is for.

    What is there already is kept: the recipe may have been edited, and the rest is the same every time. Data and teacher
    appear whole or not at all.
    """
    data, start, recipe = folder / "data", folder / "start", folder / "demo.yaml"
    if not recipe.is_file():  # first: by it the folder is known as a demo's
        folder.mkdir(parents=True, exist_ok=True)
        shipped = resources.files("stilla.samples").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        places = {"own": data / "own", "unlabelled": data / UNLABELLED, "all": data / ALL, "teacher": start, "output": folder}
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


ALL, UNLABELLED = "teacher.parquet", "unlabelled.parquet"
"""Beside `own/`: what the teacher learns from, and what of it nobody has labelled for the student."""


def _few(data: Path, each: int, label: str | None = None) -> None:
    """Of the splits in `data`, the student's own: so many training examples of every class, or in all, keep their labels."""
    own, train = data / "own", pq.read_table(data / "train.parquet")
    own.mkdir()
    order = np.random.default_rng(0).permutation(len(train))
    classes = np.zeros(len(train)) if label is None else train.column(label).to_numpy()
    few = np.concatenate([order[classes[order] == one][:each] for one in np.unique(classes)])
    others = np.setdiff1d(order, few)
    pq.write_table(train.take(few), own / "train.parquet")
    pq.write_table(train.take(others), data / UNLABELLED)
    (data / "train.parquet").rename(data / ALL)
    for split in ("validation", "test"):
        (data / f"{split}.parquet").rename(own / f"{split}.parquet")


def _digits(data: Path, start: Path) -> None:
    from stilla.samples.digits import digits, digits_teacher

    digits(data)
    digits_teacher(start)
    _few(data, 10, "label")


def _text(data: Path, start: Path) -> None:
    from datasets import Dataset

    from stilla.samples.docstrings import docstrings, docstrings_teacher

    docstrings(data)
    train = Dataset.from_parquet(str(data / "train.parquet"), keep_in_memory=True)
    docstrings_teacher(start, list(train["text"]))
    _few(data, 20, "topic")


def _lm(data: Path, start: Path) -> None:
    from datasets import Dataset

    from stilla.samples.library import functions, functions_teacher

    functions(data)
    train = Dataset.from_parquet(str(data / "train.parquet"), keep_in_memory=True)
    functions_teacher(start, list(train["text"]))
    _few(data, len(train) // 8)


DEMOS: Mapping[str, Callable[[Path, Path], None]] = {"digits": _digits, "text": _text, "lm": _lm}
