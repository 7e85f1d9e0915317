"""Two small tasks that share a body, in float64; as a program, some steps of it in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from stilla.recipe import Reptile
from stilla.runtime.processes import processes
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.text.text_classification import TextClassification
from stilla.training.reptile import Learning, Source


class Two(nn.Module):
    """A body of one linear layer, and a head."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.body = nn.Linear(3, 2, bias=False, dtype=torch.float64)
        self.head = nn.Linear(2, classes, bias=False, dtype=torch.float64)
        with torch.no_grad():
            for one in self.parameters():
                one.copy_(torch.randn(one.shape, generator=draw, dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor) -> Any:
        return {"logits": self.head(self.body(input_ids))}


def source(classes: int, rows: int, seed: int) -> Source:
    task = TextClassification.of_model(BertForSequenceClassification(BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, num_labels=classes)))
    draw = np.random.default_rng(seed)
    inputs, labels = torch.from_numpy(draw.normal(size=(rows, 3))), torch.from_numpy(draw.integers(0, classes, rows))

    def collate(some: Any) -> Batch:
        which = torch.tensor(some)
        return Batch({"student": {"input_ids": inputs[which]}, "labels": labels[which]})

    return Source(f"task {seed}", task, Two(classes, seed), Prepared(list(range(rows)), collate, np.arange(rows)))


HOW = Reptile(tasks=("a", "b"), steps=10, tasks_per_step=3, examples=5, inner_steps=4, batch_size=2, rate=0.5)
BODY = {"body.weight": torch.arange(6, dtype=torch.float64).reshape(2, 3) / 10}


def learning() -> Learning:
    return Learning([source(2, 7, 1), source(3, 9, 2)], HOW, shared=BODY, learning_rate=0.05, seed=3)


def steps(number: int) -> torch.Tensor:
    """The body after so many."""
    body, made = dict(BODY), learning()
    for one in range(number):
        body, _ = made.step(one, body)
    return body["body.weight"]


if __name__ == "__main__":
    rank = processes().process_index
    torch.save(steps(int(sys.argv[2])), Path(sys.argv[1]) / f"rank{rank}.pt")
