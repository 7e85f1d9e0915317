"""Tiny teachers that speak, their students, and utterances of ragged lengths. Also run as a program by launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Frames, Hidden, Spectrogram
from stilla.recipe import ModelSource
from stilla.students import by_layers
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.audio.talking import teachable
from stilla.tasks.audio.text_to_speech import TextToSpeech
from tests.equivalence.hearers import trained
from tests.equivalence.setting import few_steps, leave
from tests.tasks.audio import reciters, talkers


def trainer(
    place: Path, number: int = 21, teacher: Any = None, hidden: bool = True, at_once: bool = False, **options: Any
) -> DistillationTrainer:
    """`teacher`: made of the live one, given the task and the examples. `at_once`: it makes all frames so."""
    rows, models = place.parent / "rows", place.parent / ("at once" if at_once else "teacher")
    if not (models / "config.json").exists():
        if at_once:
            reciters.folder(models, **reciters.QUIET)
        else:
            talkers.folder(models, **talkers.QUIET, **talkers.NO_PRENET)
    read = data.sources.read(talkers.ljspeech(rows, number) if not rows.exists() else str(rows), document="sound")["train"]
    task = TextToSpeech.understand(TextToSpeechData(train=str(rows)), {"train": read})
    loaded = task.load(ModelSource(model=str(models)), labelled=True)
    task = task.adapted_to(loaded)
    set_seed(0)
    student = by_layers(loaded.model, 1)
    teachable(student.model, "student")
    prepared = task.prepare(read, loaded.processor, loaded.processor, training=True)
    return DistillationTrainer(
        student, loaded.model if teacher is None else teacher(loaded.model, task, prepared),
        terms=[Term(Spectrogram(attention=1.0), weight=0.5), Term(Frames()),
               *([Term(Hidden(), weight=0.1)] if hidden else [])], task=task,
        train_dataset=prepared, batch_norm="frozen",
        args=few_steps(place, 6, 1e-2, **options))


if __name__ == "__main__":
    here, batch, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    own = here / os.environ["RANK"] / "run"  # of each process, as both would write the data
    started = trainer(own, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate,
                      ddp_find_unused_parameters=False)
    trained(started)
    leave(started, here)
