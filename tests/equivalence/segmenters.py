"""A tiny model of masks and its student, and pictures with as many objects as there happen to be. Also run by launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Hidden, Masks, Segments
from stilla.recipe import ModelSource
from stilla.students import Student, automatic_layer_map
from stilla.tasks.vision.image_segmentation import ImageSegmentation
from stilla.tasks.vision.segmentation_section import ImageSegmentationData
from tests.equivalence.setting import few_steps, leave
from tests.tasks.vision.segmenting import coco, folder, model

SETS: dict[str, Callable[[], list[Term]]] = {
    "segments": lambda: [Term(Segments())],
    "all": lambda: [Term(Segments()), Term(Masks(temperature=2.0), weight=0.5), Term(Hidden(), weight=0.1)],
}


def trainer(place: Path, name: str, number: int = 21, **options: Any) -> DistillationTrainer:
    file = coco(place / "data", number)
    section = ImageSegmentationData(train=file, validation=file)
    splits = data.load(section, seed=0)
    task = ImageSegmentation.understand(section, splits)
    made = task.load(ModelSource(model=folder(place / "teacher", "eomt")), labelled=True)
    task = task.adapted_to(made)
    student = model("eomt", seed=5, num_hidden_layers=2, names=task.class_names()).train()
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    return DistillationTrainer(
        Student(student, automatic_layer_map(student, made.model)), made.model, terms=SETS[name](), task=task,
        train_dataset=prepared,
        args=few_steps(place, 4, 1e-2, **options))


if __name__ == "__main__":
    here, many, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = trainer(here / f"of-{os.environ.get('RANK', 0)}", sys.argv[5], many, per_device_train_batch_size=batch,
                  gradient_accumulation_steps=int(sys.argv[4]), ddp_find_unused_parameters=False)
    run.train()
    leave(run, here)
