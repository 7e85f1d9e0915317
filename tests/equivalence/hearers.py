"""Tiny teachers that hear, their students, and sounds of ragged lengths. Also run as a program by launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import CTC, Hidden, Labels, Logits
from stilla.recipe import ModelSource, StudentSpec
from stilla.students import by_layers
from stilla.tasks.audio.audio_classification import AudioClassification
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.sections import AudioClassificationData, SpeechRecognitionData
from stilla.tasks.audio.speech_recognition import SpeechRecognition
from stilla.training.dropout import dropping
from tests.equivalence.setting import few_steps, leave
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.setting import folder, folders

KINDS = {
    "sounds": lambda: [Term(Labels()), Term(Logits(), weight=2.0), Term(Hidden(), weight=0.1)],
    "speech": lambda: [Term(CTC(), weight=0.3), Term(Logits(temperature=1.0), weight=2.0), Term(Hidden(), weight=0.1)],
    "written": lambda: [Term(Labels(), weight=0.3), Term(Logits(), weight=2.0), Term(Hidden(), weight=0.1)],
    "written of waves": lambda: [Term(Labels(), weight=0.3), Term(Logits(), weight=2.0), Term(Hidden(), weight=0.1)],
}
TEACHERS: dict[str, Callable[[Path], str]] = {
    "speech": speakers.folder, "written": writers.folder, "written of waves": writers.moonshine_folder}


def trainer(place: Path, kind: str = "sounds", number: int = 21, **options: Any) -> DistillationTrainer:
    rows = place.parent / "rows"
    task: Any
    if kind == "sounds":
        section: Any = AudioClassificationData(train=str(rows))
        made = folders(rows, number, splits=("train", "validation")) if not rows.exists() else str(rows)
        of, teachers = AudioClassification, folder(place.parent / "teacher", norm="group")
    else:
        section = SpeechRecognitionData(train=str(rows), language="en" if kind == "written" else None)
        made = speakers.utterances(rows, number) if not rows.exists() else str(rows)
        of, teachers = SpeechRecognition, TEACHERS[kind](place.parent / "teacher")
    splits = data.load(section, seed=0)
    task = of.understand(section.model_copy(update={"train": made}), splits)
    source = ModelSource(model=teachers)
    task = task.settled(source, StudentSpec(layers=1))
    loaded = task.load(source, labelled=True)
    task = task.adapted_to(loaded)
    set_seed(0)
    student = by_layers(loaded.model, {"encoder": 1, "decoder": 1} if kind.startswith("written") else 1)
    leave_padding_out(student.model)
    prepared = task.prepare(splits["train"], loaded.processor, loaded.processor, training=True)
    return DistillationTrainer(
        student, loaded.model, terms=KINDS[kind](), task=task, train_dataset=prepared,
        args=few_steps(place, 6, 1e-2, **options))


def trained(made: DistillationTrainer, **options: Any) -> DistillationTrainer:
    with dropping(made.student, 0.0):
        made.train(**options)
    return made


if __name__ == "__main__":
    here, kind, batch, accumulate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    own = here / os.environ["RANK"] / "run"  # of each process, as both would write the data
    started = trainer(own, kind, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate,
                      ddp_find_unused_parameters=False)
    trained(started)
    leave(started, here)
