"""A tiny cross-encoder, and a student of vectors that learns its scores of a query's candidates. Also run by launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Labels, Listwise, Logits, Margins
from stilla.recipe import ModelSource
from stilla.tasks.retrieval.embedding import Embedding
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.teachers import CapturingTeacher, Keep, LiveTeacher
from tests.equivalence.setting import few_steps, leave
from tests.tasks.retrieval import rerankers
from tests.tasks.retrieval.test_crossing import candidates, student

SETS = {
    "margins": lambda: [Term(Margins(), weight=0.1)],
    "all": lambda: [Term(Margins(), weight=0.1), Term(Logits(temperature=1.0)), Term(Listwise(top=2)), Term(Labels())],
}


def trainer(
    place: Path, name: str, number: int = 24, *, stored: bool = False, pieces: bool = False, **options: Any
) -> DistillationTrainer:
    made = Embedding().load(ModelSource(model=rerankers.folder(place / "teacher")), labelled=True)
    own = student(place / "student", pieces=pieces)
    for dropout in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(own.model.config, dropout, 0.0)
    for module in own.model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0  # type: ignore[assignment]
    file = candidates(place / "candidates.jsonl", number)
    section = EmbeddingData(train=file, validation=file)
    splits = data.load(section, seed=0)
    task = Embedding.understand(section, splits).adapted_to(made).between(own, made)
    set_seed(0)
    prepared = task.prepare(splits["train"], own.processor, made.processor, training=True)
    teacher = CapturingTeacher(LiveTeacher(made.model, task), task, place / "cache", Keep(), {}) if stored else made.model
    return DistillationTrainer(own.model, teacher, terms=SETS[name](), task=task, train_dataset=prepared,
                               args=few_steps(place, 6, 2e-2, **options))


if __name__ == "__main__":
    place, number, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = trainer(place / f"of-{os.environ.get('RANK', 0)}", sys.argv[5], number, per_device_train_batch_size=batch,
                  gradient_accumulation_steps=int(sys.argv[4]), ddp_find_unused_parameters=False)
    run.train()
    leave(run, place)
