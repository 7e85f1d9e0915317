"""A teacher in memory: answers every batch with a forward of its own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from stilla.models.features import Recorder, hidden_sizes
from stilla.models.stacks import find_stacks
from stilla.signals import Batch, Dims, Signals
from stilla.tasks.base import Side, Task
from stilla.tasks.forward import cast, dtype_of, explained, listen, numbers_in


class Teacher(Protocol):
    """Whatever answers a batch with signals: a live model, a cache, a server, later several of them."""

    def __call__(self, batch: Batch) -> Signals: ...

    def to(self, device: torch.device | str) -> None:
        """Move to where the batches are."""
        ...

    def dims(self, batch: Batch | None = None) -> Dims:
        """The sizes of what it says. `batch`: a small one where hidden states are compared, else None."""
        ...


class LiveTeacher:
    """A frozen model. It stays outside the student's wrapper and state dict, in eval mode, without gradients."""

    def __init__(self, model: nn.Module, task: Task, *, stacks: bool = False, inputs: bool = False) -> None:
        """`stacks`: whether to record hidden states. `inputs`: whether to say what of its inputs an answer rests on."""
        self.model = model.requires_grad_(False).eval()
        self.task = task
        self.inputs = inputs
        self.recorder = Recorder(model) if stacks else None
        self.entered = 0
        """Numbers that it was asked about so far."""

    def __call__(self, batch: Batch) -> Signals:
        self.entered += numbers_in(batch.teacher)
        return self.answer(batch)

    # not inference_mode: tensors made there cannot be saved for the student's backward
    @torch.no_grad()
    def answer(self, batch: Batch) -> Signals:
        """The same where nobody learns from it, and it is not counted."""
        if self.model.training:  # somebody changed it; asking is cheaper than walking through all modules
            self.model.eval()
        asked = explained if self.inputs else listen
        return asked(self.model, self.task, batch, Side.TEACHER, self.recorder)

    def to(self, device: torch.device | str) -> None:
        self.model.to(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        sizes = Dims(self.task.row_classes(), embedding=self.task.embedding_width(self.model),
                     bins=self.task.bins_of(self.model))
        if batch is None:
            return sizes
        device = next(self.model.parameters()).device
        inputs = cast({name: value.to(device) for name, value in batch.teacher.items()}, dtype_of(self.model))
        return sizes.with_states(hidden_sizes(self.model, find_stacks(self.model), inputs))
