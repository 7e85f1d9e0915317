"""A tiny detector and its student, and pictures with as many objects as there happen to be. Also run by launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Edges, Hidden, Objects, Queries
from stilla.recipe import ModelSource
from stilla.students import Student, automatic_layer_map
from stilla.tasks.vision.detection import Detection
from stilla.tasks.vision.sections import DetectionData
from tests.equivalence.setting import few_steps, leave
from tests.tasks.vision.detecting import coco, folder, model

SETS: dict[str, Callable[[], list[Term]]] = {
    "objects": lambda: [Term(Objects())],
    "queries": lambda: [Term(Queries())],
    "all": lambda: [Term(Objects()), Term(Queries(temperature=2.0), weight=0.5), Term(Hidden(), weight=0.1)],
    "edges": lambda: [Term(Queries()), Term(Edges())],
}


def trainer(place: Path, name: str, number: int = 21, **options: Any) -> DistillationTrainer:
    file = coco(place / "data", number, sizes=((64, 64),))
    section = DetectionData(train=file, validation=file)
    splits = data.load(section, seed=0)
    task = Detection.understand(section, splits)
    family, smaller, size, rate = ("d-fine", {"max_num_bins": 16}, 64, 2e-3) if name == "edges" else (
        "yolos", {"num_hidden_layers": 2}, 48, 2e-2)
    made = task.load(ModelSource(model=folder(place / "teacher", family, size=size)), labelled=True)
    task = task.adapted_to(made)
    student = model(family, seed=5, names=task.class_names(), **smaller).train()
    norms = [one for one in student.modules() if isinstance(one, nn.BatchNorm2d)]  # which D-FINE's encoder has
    for one in norms:
        one.running_var *= 0.5  # type: ignore[operator]  # as of a student that was trained before
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    return DistillationTrainer(
        Student(student, automatic_layer_map(student, made.model)), made.model, terms=SETS[name](), task=task,
        train_dataset=prepared, batch_norm="frozen" if norms else "model",
        args=few_steps(place, 5, rate, **options))


if __name__ == "__main__":
    here, many, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = trainer(here / f"of-{os.environ.get('RANK', 0)}", sys.argv[5], many, per_device_train_batch_size=batch,
                  gradient_accumulation_steps=int(sys.argv[4]), ddp_find_unused_parameters=False)
    run.train()
    leave(run, here)
