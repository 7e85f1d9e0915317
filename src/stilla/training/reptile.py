"""Steps of a body that several tasks learn from, each with a head of its own: Reptile (Nichol et al. 2018, arXiv:1803.02999).

A step draws some tasks. Each trains the body, with its own head as it was made, for a few optimiser steps on a few of its
examples; then the body goes some of the way to the mean of what they have made of it. Everything that is drawn follows from
the seed, the step and the task's place in it, so that a stop, or who of several processes does which, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.errors import CompatibilityError, TrainingError
from stilla.models import parts
from stilla.objectives import term
from stilla.recipe import Reptile
from stilla.runtime.processes import processes
from stilla.signals import Dims
from stilla.tasks.base import Prepared, Task
from stilla.training.distiller import Distiller
from stilla.training.drawing import drawn_from
from stilla.training.dropout import dropping
from stilla.training.reduction import Step

Body = Mapping[str, Tensor]
"""Weights, and what else of a model is a number that training moves (running means), by name; without the head."""


@dataclass(frozen=True)
class Source:
    """One of the tasks that the body learns from: its examples, and the body with a new head for it."""

    name: str
    task: Task
    model: nn.Module
    prepared: Prepared


def body_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what tasks share of a model: what is trained and no part of its head, and its running statistics.

    Raises:
        CompatibilityError: it is not known what its head is, or nothing else of it is trained.
    """
    head = parts.chosen(model, ["head"], "student.reptile")
    body = {name: one for name, one in model.named_parameters() if one.requires_grad and name not in head}
    if not body:
        raise CompatibilityError("student.reptile: nothing but the head of this student is trained (student.freeze); leave "
                                 "one of the two out")
    saved = model.state_dict().keys()
    moving = {name: one for name, one in model.named_buffers() if name in saved and one.is_floating_point()}
    return {name: one.detach().clone() for name, one in {**body, **moving}.items()}


@torch.no_grad()
def put(body: Body, model: nn.Module) -> None:
    """Give a model this body."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in body.items():
        own[name].copy_(value)


def moved(body: Body, ways: Mapping[str, Tensor], tasks: int, rate: float) -> dict[str, Tensor]:
    """θ + rate · mean(φ - θ); ways: the sums of φ - θ over so many tasks."""
    return {name: value + rate * ways[name] / tasks for name, value in body.items()}


class Learning:
    """The steps of a body, by what a recipe says of them.

    shared: the names of what is in it. learning_rate: of the optimiser steps within, which are Adam's without momentum, as
    the paper has it. dropout: of all models while they learn; None leaves it theirs.
    """

    def __init__(
        self, sources: Sequence[Source], how: Reptile, *, shared: Collection[str], learning_rate: float, seed: int,
        dropout: float | None = 0.0,
    ) -> None:
        self.sources = sources
        self.how = how
        self.learning_rate = learning_rate
        self.seed = seed
        self.dropout = dropout
        self.sizes = np.array([len(one.prepared) for one in sources], dtype=np.float64)
        self.starts = [{name: value.clone() for name, value in one.model.state_dict().items() if name not in shared}
                       for one in sources]

    def drawn(self, number: int) -> list[int]:
        """The tasks of a step."""
        draw = np.random.default_rng((self.seed, number))
        return [int(one) for one in draw.choice(len(self.sources), self.how.tasks_per_step, p=self.sizes / self.sizes.sum())]

    def rate_of(self, number: int) -> float:
        """How much of the way step `number` (from 0) goes."""
        return self.how.rate * (1 - number / self.how.steps)

    def step(self, number: int, body: Body) -> tuple[dict[str, Tensor], float]:
        """The body after it, and the mean loss that its tasks ended with. Several processes share the tasks.

        Raises:
            TrainingError: a loss that is not finite.
        """
        drawn, state = self.drawn(number), processes()
        mine = list(enumerate(drawn))[state.process_index :: state.num_processes]
        ways = {name: torch.zeros_like(value) for name, value in body.items()}
        total = next(iter(ways.values())).new_zeros(())
        for place, which in mine:
            end, last = self._learnt(self.sources[which], self.starts[which], body, (self.seed, number, place))
            total += last
            for name, value in end.items():
                ways[name] += value - body[name]
        if state.num_processes > 1:
            for one in (total, *ways.values()):
                torch.distributed.all_reduce(one)
        loss = total.item() / len(drawn)
        if not np.isfinite(loss):
            raise TrainingError(f"reptile: the loss is not finite at step {number + 1} "
                                f"({', '.join(sorted({self.sources[one].name for one in drawn}))}); lower "
                                "student.reptile.learning_rate")
        return moved(body, ways, len(drawn), self.rate_of(number)), loss

    def _learnt(
        self, source: Source, start: Mapping[str, Tensor], body: Body, drawn: tuple[int, int, int]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What a task makes of the body, and its last loss."""
        model, task = source.model, source.task
        model.load_state_dict(start, strict=False)  # the rest is the body's
        put(body, model)
        labels = term(task.labels_by())
        with drawn_from(drawn), task.learning(model), dropping(model, self.dropout):
            distiller = Distiller(model, [labels], task, student_dims=Dims(task.row_classes())).train()
            optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=self.learning_rate,
                                         betas=(0.0, 0.999))
            loss = torch.zeros(())
            for rows in self.batches(len(source.prepared), drawn):
                batch = source.prepared.collate([source.prepared.examples[int(row)] for row in rows])
                batch = batch.to(next(model.parameters()).device)
                counts = {name: float(value) for name, value in task.counts(batch).items()}
                optimizer.zero_grad()
                loss = distiller.loss(batch, None, Step(counts))["loss"]
                loss.backward()
                optimizer.step()
        state = model.state_dict()
        return {name: state[name] for name in body}, loss.detach()

    def batches(self, size: int, drawn: tuple[int, int, int]) -> Iterator[Int[NDArray[np.int64], " batch"]]:
        """Rows of the examples that a task learns from in a step, batch by batch; over and over, each time in a new order."""
        draw = np.random.default_rng(drawn)
        some = draw.permutation(size)[: self.how.examples]
        queue = np.array([], dtype=np.int64)
        for _ in range(self.how.inner_steps):
            while len(queue) < min(self.how.batch_size, len(some)):
                queue = np.concatenate([queue, draw.permutation(some)])
            batch, queue = queue[: self.how.batch_size], queue[self.how.batch_size :]
            yield batch
