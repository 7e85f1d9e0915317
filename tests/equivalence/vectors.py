"""A tiny teacher and student that give vectors, and queries with two candidates each. Also run by launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import (
    Affinities,
    Contrastive,
    Embedding,
    Hidden,
    Interactive,
    Labels,
    Logits,
    Margins,
    Similarities,
)
from stilla.recipe import StudentSpec
from stilla.students import fresh
from stilla.tasks.retrieval import embedding
from stilla.tasks.retrieval.model import Shape, as_embedder
from stilla.tasks.retrieval.sections import EmbeddingData
from tests.equivalence.setting import few_steps, leave
from tests.tasks.retrieval.setting import folder, loaded, triples

SETS = {
    "vectors": lambda: [Term(Embedding())],
    "similarities": lambda: [Term(Similarities(), weight=20.0)],
    "contrastive": lambda: [Term(Contrastive())],
    "all": lambda: [Term(Contrastive(symmetric=True), weight=0.1), Term(Affinities(), weight=0.1),
                    Term(Interactive(), weight=0.1),
                    Term(Embedding()), Term(Similarities(), weight=20.0), Term(Margins(), weight=0.1),
                    Term(Logits(temperature=2.0), weight=0.1), Term(Labels(), weight=0.1), Term(Hidden(pooling="mean"))],
}


def trainer(
    place: Path, name: str, number: int = 24, *, dimensions: int | None = None, **options: Any
) -> DistillationTrainer:
    made = loaded(folder(place / "teacher"))
    file = triples(place / "triples.jsonl", number)
    section = EmbeddingData(train=file, validation=file, dimensions=dimensions)
    splits = data.load(section, seed=0)
    task = embedding.Embedding.understand(section, splits).adapted_to(made)
    set_seed(0)
    as_embedder(made.model, Shape("mean", True, width=32))
    student = task.started(fresh(made.model, {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
                                              "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}).model,
                           StudentSpec(layers=2))
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    return DistillationTrainer(
        student, made.model, terms=SETS[name](), task=task, train_dataset=prepared,
        args=few_steps(place, 6, 5e-2, **options))


if __name__ == "__main__":
    place, number, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = trainer(place / f"of-{os.environ.get('RANK', 0)}", sys.argv[5], number, per_device_train_batch_size=batch,
                  gradient_accumulation_steps=int(sys.argv[4]), ddp_find_unused_parameters=False)
    run.train()
    leave(run, place)
