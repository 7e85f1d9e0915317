"""Two tasks over tiny data, their teachers and a student of both. Also run as a program by launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data, tasks
from stilla.objectives import DIST, DKD, Labels, Logits
from stilla.recipe import Recipe
from stilla.stages.starting import start_student
from tests.equivalence.setting import few_steps, leave
from tests.tasks.several import setting

SETS = {
    "rows": lambda: [Term(Labels(), weight={"linear": [0.0, 1.0]}), Term(Logits(temperature=2.0), weight=0.7),
                     Term(DKD(), name="topics/dkd", part="topics", weight=0.5)],
    "over steps": lambda: [Term(Labels(), weight=0.3), Term(DIST(), name="topics/dist", part="topics"), Term(Logits())],
    "of one": lambda: [Term(Labels(), weight=0.3), Term(DIST()), Term(Logits())],
}
"""Terms by what they are about; the labels with BAM's annealing."""


def recipe(place: Path, number: tuple[int, int], temperature: float, names: Sequence[str], *, alone: bool) -> Recipe:
    """`alone`: of the topics by themselves, no part of anything."""
    parts = setting.parts(place / "data", train=number)
    parts["topics"]["data"]["augment"] = "none"
    parts["words"]["teacher"] = setting.tagger(place / "tagger", width=16)
    said: dict[str, Any] = {"task": "several", "data": {
        "parts": {name: parts[name] for name in names}, "temperature": temperature}}
    if alone:
        said = {"task": "text-classification", "data": parts["topics"]["data"]}
    teacher = setting.topics(place / "start", width=16)
    return Recipe.model_validate({**said, "output": "run", "student": 1, "teacher": teacher})


def trainer(
    place: Path, name: str = "rows", *, number: tuple[int, int] = (29, 12), temperature: float = 2.0,
    callbacks: Sequence[Any] = (), teacher: Any = None, names: Sequence[str] = ("topics", "words"), alone: bool = False,
    **options: Any,
) -> DistillationTrainer:
    said = recipe(place, number, temperature, names, alone=alone)
    splits = data.load(said.data, seed=0)
    task = tasks.find(said.task).understand(said.data, splits).settled(said.teacher, said.student)
    loaded = task.load(said.teacher, labelled=True)
    task = task.adapted_to(loaded)
    set_seed(0)
    student, _ = start_student(said.student, task, loaded)
    prepared = task.prepare(splits["train"], task.pattern(loaded).processor, loaded.processor, training=True, seed=7)
    return DistillationTrainer(
        student, loaded.model if teacher is None else teacher(loaded.model, task), terms=SETS[name](), task=task,
        train_dataset=prepared, callbacks=callbacks,
        args=few_steps(place, 6, 5e-2, **options))


if __name__ == "__main__":
    folder, batch, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    own = folder / str(os.getpid())  # each process makes the same files
    made = trainer(own, sys.argv[4], max_steps=-1, num_train_epochs=2, per_device_train_batch_size=batch,
                   gradient_accumulation_steps=accumulate)
    made.train()
    leave(made, folder)
