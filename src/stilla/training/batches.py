"""Which examples make a batch: seeded by seed and epoch alone, so that resuming and several processes are exact.

An optimiser step's examples are chosen first and then cut into the micro-batches of all processes. So the same seed
trains on the same steps however they are cut; what Trainer's own length grouping draws from the global generator
differs after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.training.mixing import Mixing

VOID = -1
"""Index in place of an example where a process has none left; its batch counts nothing."""

GROUPED_STEPS = 50
"""Steps whose examples are sorted by length together: enough to save most padding, few enough to stay random."""


class StepBatches(Sampler[list[int]]):
    """The micro-batches of one process, one list of indices each, step after step."""

    def __init__(
        self,
        examples: int,
        *,
        batch_size: int,
        accumulate: int = 1,
        processes: int = 1,
        process: int = 0,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        on_epoch: Callable[[int], None] | None = None,
        shuffle: bool = True,
        mixing: Mixing | None = None,
    ) -> None:
        """`batch_size`: per micro-batch. `lengths`: group examples of similar length into steps. Without `shuffle` in the
        data's own order. `mixing`: which unlabelled examples stand beside which labelled ones."""
        self.examples = examples
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.processes = processes
        self.process = process
        self.seed = seed
        self.lengths = lengths
        self.on_epoch = on_epoch
        self.shuffle = shuffle
        self.mixing = mixing
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if self.on_epoch is not None:
            self.on_epoch(epoch)

    def __len__(self) -> int:
        full, rest = divmod(self.examples, self._step_size)
        return full * self.accumulate + self._pieces(rest)

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self._steps():
            yield from self._micro_batches(indices)

    @property
    def _step_size(self) -> int:
        return self.batch_size * self.accumulate * self.processes

    def seen(self, steps: int, unlabelled: NDArray[np.bool_]) -> tuple[int, int]:
        """How many labelled and unlabelled examples so many steps have taken at least once."""
        if self.mixing is not None:
            return self.mixing.seen(steps)
        self.epoch = 0
        taken = [index for step in self._steps()[:steps] for index in step]  # the second epoch has no others
        return int((~unlabelled[taken]).sum()), int(unlabelled[taken].sum())

    def _steps(self) -> list[list[int]]:
        if self.mixing is not None:
            return self._mixed(self.mixing)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.examples, generator=generator).tolist() if self.shuffle else list(range(self.examples))
        size = self._step_size
        lengths = self.lengths
        if lengths is None:
            return [order[start:start + size] for start in range(0, len(order), size)]
        steps = []
        for start in range(0, len(order), size * GROUPED_STEPS):
            block = sorted(order[start:start + size * GROUPED_STEPS], key=lambda index: -lengths[index])
            steps += [block[first:first + size] for first in range(0, len(block), size)]
        # the incomplete step stays last: Trainer takes the last step of an epoch to be the short one
        full = len(steps) - (self.examples % size > 0)
        return [steps[index] for index in torch.randperm(full, generator=generator).tolist()] + steps[full:]

    def _mixed(self, mixing: Mixing) -> list[list[int]]:
        """Steps that take as many of either kind as their share says; of similar lengths, as far as both have them."""
        steps, lengths = mixing.drawn(self.epoch), self.lengths
        if lengths is None:
            return [labelled + unlabelled for labelled, unlabelled in steps]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        found: list[list[int]] = [[] for _ in steps]
        for start in range(0, len(steps), GROUPED_STEPS):
            block = steps[start : start + GROUPED_STEPS]
            # the longest of both kinds go into one step, wherever in the block that is
            order = torch.randperm(len(block), generator=generator).tolist()
            for kind in (0, 1):
                longest = sorted((index for step in block for index in step[kind]), key=lambda index: -lengths[index])
                for place in order:
                    count = len(block[place][kind])
                    found[start + place] += longest[:count]
                    longest = longest[count:]
        return found

    def _pieces(self, examples: int) -> int:
        """Micro-batches per process that an incomplete step needs."""
        return -(-examples // (self.batch_size * self.processes))

    def _micro_batches(self, indices: list[int]) -> Iterator[list[int]]:
        pieces = self._pieces(len(indices)) * self.processes
        for piece in range(self.process, pieces, self.processes):
            # as even as possible, so that no process waits for another; empty only if there are fewer examples
            start, end = len(indices) * piece // pieces, len(indices) * (piece + 1) // pieces
            yield indices[start:end] or [VOID]


class Examples(Dataset[Any]):
    """Prepared examples, with example 0 standing in for a void one."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def __len__(self) -> int:
        return len(self.prepared.keys)

    def __getitem__(self, index: int) -> tuple[Any, bool]:
        return self.prepared.examples[max(index, 0)], index == VOID

    def collate(self, items: Sequence[tuple[Any, bool]]) -> Batch:
        batch = self.prepared.collate([example for example, _ in items])
        if any(void for _, void in items):
            batch["void"] = True
        return batch


class EpochLoader(DataLoader[Any]):
    """A loader that Trainer can tell the epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
