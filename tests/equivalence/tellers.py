"""Tiny teachers that write about pictures, students that see them in fewer tokens, and captions of ragged lengths. Also run
as a program by launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Labels, Logits
from stilla.recipe import ModelSource
from stilla.tasks.vision_text.image_text_to_text import ImageTextToText
from stilla.tasks.vision_text.sections import ImageTextToTextData
from tests.equivalence.setting import few_steps, leave
from tests.tasks.vision_text.tellers import captioned, folder


def trainer(place: Path, family: str = "llava", number: int = 7, cached: Any = None, **options: Any) -> DistillationTrainer:
    """`cached`: makes what answers in place of the teacher, of teacher, task and examples."""
    section = ImageTextToTextData(train=captioned(place.parent / f"{place.name}.parquet", number, each=3))
    splits = data.load(section, seed=0)
    task = ImageTextToText.understand(section, splits)
    teacher, student = (
        task.load(ModelSource(model=folder(place / who, family, layers=layers, size=size, seed=seed)), labelled=True)
        for who, layers, size, seed in (("teacher", 2, 48, 0), ("student", 1, 32, 1)))
    task = task.adapted_to(teacher).between(student, teacher)
    prepared = task.prepare(splits["train"], student.processor, teacher.processor, training=True)
    said = teacher.model if cached is None else cached(teacher.model, task, prepared)
    set_seed(0)
    terms = [Term(Labels(), weight=0.3), Term(Logits(), weight=2.0)]
    return DistillationTrainer(
        student.model, said, terms=terms, task=task, train_dataset=prepared,
        args=few_steps(place, 4, 1e-2, **options))


if __name__ == "__main__":
    here, family, batch, accumulate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    own = here / os.environ["RANK"] / "run"  # of each process, as both would write the data
    own.parent.mkdir(parents=True, exist_ok=True)
    started = trainer(own, family, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate)
    started.train()
    leave(started, here)
