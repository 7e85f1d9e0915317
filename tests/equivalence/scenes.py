"""A tiny SegFormer and its student, and pictures with masks of which some are hardly labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Channels, Hidden, Labels, Logits, Pairwise
from stilla.students import fresh
from stilla.tasks.vision.segmentation import SemanticSegmentation
from tests.equivalence.setting import few_steps
from tests.tasks.vision.scenes import loaded, section, segformer, table


def trainer(place: Path, number: int = 16, **options: Any) -> DistillationTrainer:
    place.mkdir(exist_ok=True)
    asked = section(train=table(place / "t.parquet", number), stride=4)
    split = data.sources.read(str(asked.train))["train"]
    task = SemanticSegmentation.understand(asked, {"train": split})
    made = loaded(task, segformer(place / "teacher", std=0.2))
    task = task.adapted_to(made)
    set_seed(0)
    student = fresh(made.model, {"depths": [1, 1, 1, 1]}).model
    for module in student.modules():  # its head's batch normalisation sees micro-batches; with its own statistics it does not
        if type(module).__name__ == "BatchNorm2d":
            module.train = lambda mode=True, module=module: module  # type: ignore[assignment, misc]
            module.training = False
    terms = [Term(Labels()), Term(Logits()), Term(Channels(), weight=10.0), Term(Pairwise(nodes=4), weight=300.0),
             Term(Hidden(pooling="mean"), weight=0.1)]
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    return DistillationTrainer(
        student, made.model, terms=terms, task=task, train_dataset=prepared,
        args=few_steps(place, 2, 2e-2, **options))
