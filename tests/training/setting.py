"""What a Trainer user brings: tokenised datasets of text, tiny models from configs, arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, TrainingArguments

from stilla import DistillationTrainer, Term
from stilla.objectives import Labels, Logits
from tests import tiny

WORDS = [*tiny.FILLER, *(word for group in tiny.TOPICS.values() for word in group)]


def classifier(*, layers: int = 1, labels: int = 2, seed: int = 0, **config: Any) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**{
        "vocab_size": len(tiny.tokenizer()), "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64, "num_labels": labels, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.5, **config})).eval()


def rows(number: int = 20) -> datasets.Dataset:
    """Texts of ragged lengths with a class."""
    texts = [" ".join(WORDS[(3 * index + step) % len(WORDS)] for step in range(2 + index % 7)) for index in range(number)]
    return datasets.Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(number)]})


def tokenised(number: int = 20, **kept: Any) -> datasets.Dataset:
    """As `map(tokenize)` leaves it: with its text column."""
    own = tiny.tokenizer()
    return rows(number).map(lambda batch: own(batch["text"]), batched=True, **kept)


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    return TrainingArguments(str(folder), **{
        "max_steps": 2, "per_device_train_batch_size": 8, "report_to": "none", "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True, "logging_steps": 1, "learning_rate": 1e-2, **more})


def trainer(
    folder: Path, data: Any = None, *, student: PreTrainedModel | None = None, teacher: PreTrainedModel | None = None,
    terms: Sequence[Term] | None = None, evaluated: Any = None, args: TrainingArguments | None = None,
    options: dict[str, Any] | None = None, **more: Any,
) -> DistillationTrainer:
    """`options`: of the arguments. By default labels and a teacher of two layers."""
    return DistillationTrainer(
        student or classifier(), teacher or classifier(layers=2, seed=1),
        terms=terms or [Term(Labels(), weight=0.3), Term(Logits(temperature=2.0), weight=0.7)],
        args=args or arguments(folder, **(options or {})), train_dataset=tokenised() if data is None else data,
        eval_dataset=evaluated, **{"processing_class": tiny.tokenizer(), **more})


def losses(made: DistillationTrainer) -> list[float]:
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]
