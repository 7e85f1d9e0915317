"""A whole optimiser step before its first gradient: its counts, and what terms sum over all of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stilla.signals import Batch, Signals
from stilla.training.drawing import as_before
from stilla.training.reduction import Step


class Processes(Protocol):
    """What is needed of accelerate's `Accelerator`."""

    num_processes: int
    process_index: int

    def gather(self, tensor: Any) -> Any: ...


class WholeStep:
    """What is known of a step in whose course this process makes forwards of these micro-batches."""

    def __init__(self, counts: Mapping[str, float], batches: Sequence[Batch], processes: Processes) -> None:
        self.counts = counts
        self.batches = batches
        self.processes = processes
        self._sums: dict[str, Tensor] = {}
        self._said: list[Signals | None] = []

    def step(self, progress: float) -> Step:
        """What each of its forwards has to know."""
        return Step(self.counts, self.processes.num_processes, progress, len(self.batches), self._whole)

    def survey(
        self, model: nn.Module, look: Callable[[Batch, Signals | None, Step], Mapping[str, Tensor]],
        tell: Callable[[Batch], Signals | None], place: Callable[[Batch], Batch], progress: float,
    ) -> None:
        """Look at all micro-batches before the gradients of the first, where a forward does not see the whole step.

        `model`: the distiller or its wrapper. `look`: what its step terms sum over a batch, by name. `tell`: the teacher.
        `place`: brings a batch to the device. Changes nothing: what is drawn at random here is drawn again, and a student's
        running statistics stay what they were.
        """
        if self._sums or len(self.batches) < 2:
            return
        step = self.step(progress)
        with unchanged(model):
            for batch in self.batches:
                there = place(batch)
                said = tell(there)
                # its answers are kept, but not hidden states, for whose memory the step was cut
                self._said.append(None if said is not None and said.stacks else said)
                for name, part in look(there, said, step).items():
                    self._sums[name] = part + self._sums.get(name, 0.0)
        self._sums = {name: self._gathered(part) for name, part in self._sums.items()}

    def said(self, tell: Callable[[], Signals | None]) -> Signals | None:
        """The teacher's answer to the next micro-batch: what it said before, or what it says now."""
        before = self._said.pop(0) if self._said else None
        return tell() if before is None else before

    def _whole(self, name: str, part: Tensor) -> Tensor:
        return self._sums[name] if name in self._sums else self._gathered(part)

    def _gathered(self, part: Tensor) -> Tensor:
        total: Tensor = self.processes.gather(part[None]).sum(0)
        return total


def place(
    batches: Sequence[Batch], counted: Sequence[Mapping[str, int]], processes: Processes, device: torch.device | str
) -> None:
    """Say in each of a process's micro-batches where its vectors stand among those of the step (`start`).

    counted: what those of them that are not void hold.
    """
    own = torch.tensor([sum(counts["examples"] for counts in counted)], dtype=torch.int64, device=device)
    start = int(processes.gather(own)[: processes.process_index].sum())
    for batch, counts in zip((one for one in batches if "void" not in one), counted, strict=True):
        batch["start"] = start
        start += counts["examples"]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Forwards that leave no trace, in buffers or generators."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    with as_before(device):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
