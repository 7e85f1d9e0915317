"""A tiny teacher and student of pictures and texts, and pictures with as many captions as there happen to be. Also run by
launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Affinities, Contrastive, Embedding, Interactive, Similarities
from stilla.students import fresh
from stilla.tasks.vision_text.image_text import ImageText
from stilla.tasks.vision_text.sections import ImageTextData
from tests.equivalence.setting import few_steps, leave
from tests.tasks.vision_text.setting import captioned, classed, clip_folder, loaded, siglip_folder


def terms() -> list[Term]:
    return [Term(Embedding()), Term(Affinities(temperature=2.0), weight=0.3), Term(Interactive(), weight=0.3),
            Term(Contrastive(), weight=0.3), Term(Similarities(), weight=5.0)]


def trainer(
    place: Path, number: int = 24, *, classes: bool = False, family: str = "clip", cached: Any = None, **options: Any
) -> DistillationTrainer:
    """`cached`: makes what answers in place of the teacher, of teacher and task."""
    made = loaded((clip_folder if family == "clip" else siglip_folder)(place / "teacher"))
    file = classed(place / "x.parquet", number) if classes else captioned(place / "x.parquet", number, each=3)
    section = ImageTextData(train=file, validation=file)
    splits = data.load(section, seed=0)
    task = ImageText.understand(section, splits).adapted_to(made)
    set_seed(0)
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}
    narrow = {"projection_dim": 16} if family == "clip" else {}
    student = fresh(made.model, {"text_config": {**sizes, **({} if narrow else {"projection_size": 16})},
                                 "vision_config": sizes, **narrow}).model
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    teacher = made.model if cached is None else cached(made.model, task, prepared)
    return DistillationTrainer(
        student, teacher, terms=terms(), task=task, train_dataset=prepared,
        args=few_steps(place, 4, 5e-2, **options))


if __name__ == "__main__":
    place, number, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = trainer(place / f"of-{os.environ.get('RANK', 0)}", number, per_device_train_batch_size=batch,
                  gradient_accumulation_steps=int(sys.argv[4]))
    run.train()
    leave(run, place)
