"""One teacher's answers for several students, and a finished student as the start for another task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.levers.reasons import plainly_taught
from benchmarks.levers.setting import Setting, cell, seconds, signed, table
from benchmarks.students import run_of
from benchmarks.tables import markdown
from stilla import Run
from stilla.report import numbers

STEPS = 60
DEPTHS = (1, 2)


def show(setting: Setting) -> str:
    return f"{several_students(setting)}\n\n{another_task(setting)}"


def several_students(setting: Setting) -> str:
    """Students of several depths, each with the live teacher, and all from what the teacher told the first."""
    found: dict[str, list[Run]] = {"live teacher": [], "one capture": []}
    told = setting.folder / "told-1" / "cache"
    distill = {**setting.recipe()["distill"][0], "epochs": 3}
    for depth in DEPTHS:
        how: dict[str, Any] = {"student": {"layers": depth}, "distill": distill, "evaluate": {"baseline": False, "seeds": 1}}
        found["live teacher"].append(setting.run(f"live {depth}", cache={"form": "none"}, **how))
        cache = {} if depth == DEPTHS[0] else {"path": str(told)}
        found["one capture"].append(setting.run(f"told {depth}", cache=cache, **how))
    rows = [[name, *(f"{seconds(run):.1f} s, {numbers.quality(run.scores.metric, run.scores.student[run.scores.metric])}"
                     for run in runs)] for name, runs in found.items()]
    return markdown(["", *(f"{depth} layer{'s' if depth > 1 else ''}" for depth in DEPTHS)], rows)


def another_task(setting: Setting) -> str:
    """Is a digit even? From ten pictures of each answer, with a teacher that has seen all; and what is left of the digits."""
    digits = plainly_taught(setting)
    data = parities(setting.data, setting.folder / "parities")
    base = {"task": "image-classification", "data": {"train": str(data), "label": "parity", "limit": {"per_class": 10}},
            "evaluate": {"baseline": True, "seeds": setting.seeds, "speed": False}}
    first = setting.recipe()["teacher"]
    teacher = str(run_of({
        **base, "data": {"train": str(data), "label": "parity"}, "student": {"layers": 1},
        "distill": {"max_steps": 1, "precision": "float32"},
        "teacher": {"model": first["model"], "train": {**first["train"], "data": None, "epochs": 5}},
        "evaluate": {"speed": False}, "output": str(setting.folder / "parity-teacher")}, []).folder / "teacher")
    how = {"max_steps": STEPS, "batch_size": 16, "learning_rate": 1e-3, "precision": "float32"}
    starts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "random weights": ({"config": {"num_hidden_layers": 1}}, how),
        "a layer of its teacher": ({"layers": 1}, how),
        "the student of digits": ({"model": str(digits.folder)}, how),
        "the same, a tenth of the rate": ({"model": str(digits.folder)}, {**how, "learning_rate": 1e-4}),
        "the same, its layer frozen": ({"model": str(digits.folder), "freeze": ["embeddings", "layers"]}, how),
    }
    runs = {name: run_of({**base, "teacher": {"model": teacher}, "student": student, "distill": distill,
                          "output": str(setting.folder / f"parity-{number}")}, [])
            for number, (name, (student, distill)) in enumerate(starts.items())}
    kept = [run.scores.kept for run in runs.values()]
    left = [numbers.MISSING if one is None else f"{cell(one.metric, one.after['student'])} ({signed(one.lost['student'])})"
            for one in kept]
    before = next(one.before for one in kept if one is not None)
    return (f"{table(runs, {'left of the digits': left})}\n\nteacher of parities "
            f"{100 * next(iter(runs.values())).scores.teacher['accuracy']:.1f}; digits before {100 * before.value:.1f}")


def parities(source: Path, target: Path) -> Path:
    """The demo's digits, with whether each is even for its label."""
    target.mkdir(parents=True, exist_ok=True)
    for split, file in (("train", source / "teacher.parquet"), ("validation", source / "own" / "validation.parquet"),
                        ("test", source / "own" / "test.parquet")):
        whole = pq.read_table(file)
        labels = ["odd" if digit % 2 else "even" for digit in whole.column("label").to_pylist()]
        pictures = [{"image": row["image"]["bytes"], "parity": label}
                    for row, label in zip(whole.to_pylist(), labels, strict=True)]
        pq.write_table(pa.Table.from_pylist(pictures), target / f"{split}.parquet")
    return target
