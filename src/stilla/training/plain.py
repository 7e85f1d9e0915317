"""What a person with Trainer code of their own brings: plain models, datasets and collators, in the types used here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from transformers import DataCollatorWithPadding, default_data_collator

from stilla.errors import CompatibilityError
from stilla.models.features import hidden_widths
from stilla.models.stacks import find_stacks
from stilla.signals import Batch, Dims
from stilla.tasks import find, of_model
from stilla.tasks.base import Prepared, Task


def task_of(model: nn.Module, task: Task | str | None) -> Task:
    """The task itself, or the one that fits the model.

    Raises:
        CompatibilityError: no task is known for a model of this class.
    """
    if isinstance(task, Task):
        return task
    return find(task).of_model(model) if task is not None else of_model(model)


def dims_of(model: nn.Module, task: Task, inputs: Mapping[str, Tensor] | None) -> Dims:
    """Sizes of what a model will say. `inputs`: of a small batch, where hidden states are compared; else None."""
    if inputs is None:
        return Dims(task.row_classes())
    device = next(model.parameters()).device
    placed = {name: value.to(device) for name, value in inputs.items()}
    return Dims(task.row_classes(), hidden_widths(model, find_stacks(model), placed))


def prepared_from(
    dataset: Any, collator: Callable[[Sequence[Any]], Mapping[str, Any]] | None, processor: Any, task: Task
) -> Prepared | None:
    """A prepared split of a dataset of model inputs with `labels`: the same inputs for teacher and student."""
    if dataset is None or isinstance(dataset, Prepared):
        return dataset
    pads = processor is not None and callable(getattr(processor, "pad", None))
    collate = collator or (DataCollatorWithPadding(processor) if pads else default_data_collator)
    return Prepared(examples=_Keyed(dataset), collate=lambda items: _batch(items, collate, task),
                    keys=np.arange(len(dataset)), lengths=_lengths(dataset))


class _Keyed(TorchDataset[Any]):
    """(index, example) pairs, so that a batch knows its examples."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]


def _batch(
    items: Sequence[tuple[int, Any]], collate: Callable[[Sequence[Any]], Mapping[str, Any]], task: Task
) -> Batch:
    inputs = {name: value for name, value in collate([example for _, example in items]).items()
              if isinstance(value, Tensor)}
    if "labels" not in inputs:
        raise CompatibilityError(f"the dataset's batches have {sorted(inputs)} and no `labels`; name the label column so")
    labels = task.placed(inputs.pop("labels"))
    return Batch(student=inputs, teacher=inputs, labels=labels, keys=torch.tensor([index for index, _ in items]))


def _lengths(dataset: Any) -> list[int] | None:
    names = getattr(dataset, "column_names", None)
    if names is None or "input_ids" not in names:
        return None
    return [len(ids) for ids in dataset["input_ids"]]
