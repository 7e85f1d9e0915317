"""A tiny teacher that hears, its student, and sounds of ragged lengths. Also run as a program by launchers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Hidden, Labels, Logits
from stilla.students import by_layers
from stilla.tasks.audio.audio_classification import AudioClassification
from stilla.tasks.audio.hearing import ear_of
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.sections import AudioClassificationData
from stilla.teachers import Teacher
from stilla.training.dropout import dropping
from tests.equivalence.setting import losses, weights
from tests.tasks.audio.setting import LABELS, extractor, folders, model


def trainer(place: Path, number: int = 21, teacher: Teacher | None = None, **options: Any) -> DistillationTrainer:
    sounds = place.parent / "sounds"
    if not sounds.exists():
        folders(sounds, number, splits=("train", "validation"))
    section = AudioClassificationData(train=str(sounds))
    splits = data.load(section, seed=0)
    made = model("wav2vec2", "group")
    task = AudioClassification.understand(section, splits)
    assert task.class_names() == tuple(sorted(LABELS["label2id"]))
    ear = ear_of(extractor(), made)
    set_seed(0)
    student = by_layers(made, 1)
    leave_padding_out(student.model)
    prepared = task.prepare(splits["train"], ear, ear, training=True)
    arguments = {"per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 2e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "max_grad_norm": 0.5, **options}
    return DistillationTrainer(
        student, teacher or made, terms=[Term(Labels()), Term(Logits(), weight=2.0), Term(Hidden(), weight=0.1)], task=task,
        train_dataset=prepared,
        args=TrainingArguments(output_dir=str(place), report_to=[], disable_tqdm=True, use_cpu=True,
                               remove_unused_columns=False, **arguments))


def trained(made: DistillationTrainer, **options: Any) -> DistillationTrainer:
    with dropping(made.student, 0.0):
        made.train(**options)
    return made


if __name__ == "__main__":
    folder, batch, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    made = trainer(folder / "run", per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate,
                   ddp_find_unused_parameters=False)
    trained(made)
    torch.save((weights(made), losses(made)), folder / f"rank{made.args.process_index}.pt")
