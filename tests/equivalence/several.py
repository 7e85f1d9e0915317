"""Two tasks over tiny data, their teachers and a student of both. Also run as a program by launchers."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from stilla import DistillationTrainer, Term, data, tasks
from stilla.objectives import DIST, DKD, Labels, Logits
from stilla.recipe import Recipe, StudentSpec
from stilla.stages.starting import start_student
from stilla.stages.unlabelled import Pool, together
from stilla.tasks.base import Task
from tests import tiny
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
    student: StudentSpec | None = None, unlabelled: Mapping[str, int] | None = None, share: object = None, **options: Any,
) -> DistillationTrainer:
    """`unlabelled`: how many examples without labels stand behind those of each task. `share`: of them in every step."""
    said = recipe(place, number, temperature, names, alone=alone)
    splits = data.load(said.data, seed=0)
    task = tasks.find(said.task).understand(said.data, splits).settled(said.teacher, said.student)
    loaded = task.load(said.teacher, labelled=True)
    task = task.adapted_to(loaded)
    set_seed(0)
    made, _ = start_student(student or said.student, task, loaded)
    examples = together(task, splits, pool(task, unlabelled))
    prepared = task.prepare(examples, task.pattern(loaded).processor, loaded.processor, training=True, seed=7)
    if unlabelled and prepared.unlabelled is None:
        prepared = replace(prepared, unlabelled=data.are_unlabelled(examples)[prepared.keys])
    return DistillationTrainer(
        made, loaded.model if teacher is None else teacher(loaded.model, task), terms=SETS[name](), task=task,
        train_dataset=prepared, callbacks=callbacks, unlabelled_share=share,  # type: ignore[arg-type]
        args=few_steps(place, 6, 5e-2, **options))


def pool(task: Task, numbers: Mapping[str, int] | None) -> Pool | None:
    """So many examples of each task that nobody has labelled."""
    if not numbers:
        return None
    draw = random.Random(11)
    some = {name: [draw.choices(tiny.FILLER, k=draw.randint(2, 7)) for _ in range(number)]
            for name, number in numbers.items()}
    rows = {name: Dataset.from_dict({"tokens": one} if name == "words" else {"text": [" ".join(words) for words in one]})
            for name, one in some.items()}
    return Pool.of_parts({name: Pool(task.by_name[name].unlabelled(one, {})) for name, one in rows.items()})


POOLS = {"words": 9, "topics": 14}

if __name__ == "__main__":
    folder, batch, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    own = folder / str(os.getpid())  # each process makes the same files
    more: dict[str, Any] = {}
    if sys.argv[5:] == ["unlabelled"]:
        more = {"unlabelled": POOLS, "share": {"linear": [0.2, 0.9]}, "student": StudentSpec.model_validate(
            {"layers": 1, "lora": {"r": 2}}), "ddp_find_unused_parameters": True}
    made = trainer(own, sys.argv[4], max_steps=-1, num_train_epochs=2, per_device_train_batch_size=batch,
                   gradient_accumulation_steps=accumulate, **more)
    made.train()
    leave(made, folder)
