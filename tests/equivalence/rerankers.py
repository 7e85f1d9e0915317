"""A tiny reranker and its student, and queries with as many candidates as there happen to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import set_seed

from stilla import DistillationTrainer, Term, data
from stilla.objectives import Labels, Logits, Ranking
from stilla.students import fresh
from stilla.tasks.retrieval.reranking import Reranking
from stilla.tasks.retrieval.sections import RerankingData
from tests.equivalence.setting import few_steps
from tests.tasks.retrieval.rerankers import folder, lists, loaded

SETS = {
    "scores": lambda: [Term(Logits(divergence="mse"))],
    "lists": lambda: [Term(Ranking())],
    "all": lambda: [Term(Logits(divergence="mse")), Term(Ranking(compare="margin_mse"), weight=0.1, name="margins"),
                    Term(Ranking(compare="ranknet"), name="order"), Term(Ranking(temperature=2.0)), Term(Labels())],
}


def trainer(place: Path, name: str, number: int = 24, **options: Any) -> DistillationTrainer:
    made = loaded(folder(place / "teacher"))
    file = lists(place / "lists.jsonl", number)
    section = RerankingData(train=file, validation=file)
    splits = data.load(section, seed=0)
    task = Reranking.understand(section, splits).adapted_to(made)
    set_seed(0)
    student = fresh(made.model, {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
                                 "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}).model
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    return DistillationTrainer(
        student, made.model, terms=SETS[name](), task=task, train_dataset=prepared,
        args=few_steps(place, 6, 2e-2, **options))
