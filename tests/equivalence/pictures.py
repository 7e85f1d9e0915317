"""Tiny models of pictures with layers that normalise by the batch. Also run by launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    TrainingArguments,
    ViTForImageClassification,
    set_seed,
)

from stilla import DistillationTrainer, Term
from stilla.objectives import Labels, Logits
from tests.equivalence.setting import losses, weights
from tests.tasks.tiny import vit_config

SIZE = 8


def resnet(width: int = 8, depths: Sequence[int] = (1, 1)) -> ResNetForImageClassification:
    return ResNetForImageClassification(ResNetConfig(
        embedding_size=width, hidden_sizes=[width, 2 * width], depths=list(depths), layer_type="basic", num_labels=3))


def vit(layers: int = 2) -> ViTForImageClassification:
    return ViTForImageClassification(vit_config(num_labels=3, num_hidden_layers=layers))


def examples(number: int = 24) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    return Dataset.from_list([{"pixel_values": torch.randn(3, SIZE, SIZE, generator=generator).tolist(), "labels": index % 3}
                              for index in range(number)])


def stacked(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.tensor([item["pixel_values"] for item in items]),
            "labels": torch.tensor([item["labels"] for item in items])}


def used(model: nn.Module) -> nn.Module:
    """With running statistics that are of some data."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(pixel_values=torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 2 + 1)
    return model.eval()


def trainer(folder: Path, *, student: nn.Module | None = None, teacher: nn.Module | None = None, data: Dataset | None = None,
            objectives: Sequence[Term] | None = None, collator: Any = stacked, batch_norm: Any = "model", average: Any = None,
            **options: Any) -> DistillationTrainer:
    torch.manual_seed(0)
    model, told = student or used(resnet()), teacher or used(resnet(16))
    set_seed(0)
    arguments = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "lr_scheduler_type": "linear", **options}
    return DistillationTrainer(
        model, told, terms=objectives or [Term(Labels(), weight=0.3), Term(Logits(), weight=0.7)],
        train_dataset=data or examples(), eval_dataset=examples(), data_collator=collator, batch_norm=batch_norm,
        average=average,
        args=TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True, remove_unused_columns=False,
                               logging_nan_inf_filter=False, **arguments))


if __name__ == "__main__":
    place, number, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    found = []
    for how in ("frozen", "model"):
        made = trainer(place, data=examples(number), per_device_train_batch_size=batch, max_steps=-1, num_train_epochs=2,
                       ddp_find_unused_parameters=False, batch_norm=how)
        made.train()
        found.append((weights(made), losses(made)))
    torch.save(found, place / f"rank{made.args.process_index}.pt")
