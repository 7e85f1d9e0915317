"""The only place that divides.

The loss of an optimiser step is, per term, the sum over all its micro-batches and processes divided by a count over
the same, so that how a step is cut into pieces changes nothing. Counts come from the batches alone, before the
first forward of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stilla.errors import CompatibilityError, all_of


def _alone(name: str, part: Tensor) -> Tensor:
    return part


@dataclass(frozen=True)
class Step:
    """What one forward has to know about the optimiser step that it is a part of.

    `counts`: over all micro-batches and processes of the step. `processes`: over how many gradients are averaged.
    `progress`: fraction of the stage's steps that are done. `micro_batches`: of each process. `whole`: what a term sums over
    rows, of the whole step, by its name and this forward's part of it. It passes the student's wrapper as one opaque object.
    """

    counts: Mapping[str, float]
    processes: int = 1
    progress: float = 0.0
    micro_batches: int = 1
    whole: Callable[[str, Tensor], Tensor] = _alone

    def coefficient(self, weight: float, count: str, *, void: bool = False) -> float:
        """What a local sum is multiplied by: weight / global count, times what averaging over processes takes away.

        Zero where nothing was counted, and for a `void` batch (a process that had no examples left).
        """
        counted = self.counts[count]
        return 0.0 if void or counted == 0 else weight * self.processes / counted

    @property
    def share(self) -> float:
        """What a loss of the whole step, which every forward makes anew, is multiplied by."""
        return 1.0 / self.micro_batches

    def placed(self, entries: Tensor, start: int, *, void: bool = False) -> Tensor:
        """(entries of the step, numbers): these at their places, zero elsewhere, so that the parts of a step add up to the
        table of all of its entries. Nothing of a void batch."""
        total = int(self.counts["examples"])
        if void:
            return entries.new_zeros(total, entries.shape[1]) + 0.0 * entries.sum()
        return torch.nn.functional.pad(entries, (0, 0, start, total - start - len(entries)))

    def of_sums(self, name: str, part: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """This forward's part of a loss that is a function of sums over the rows of the whole step.

        `part`: its part of the sums. The gradient is that of the loss with respect to them, at the sums of all; the value
        is an equal share, so that those of all micro-batches add up to the loss, as a mean over processes.
        """
        value = loss(self.whole(name, part.detach()) + part - part.detach())
        return self.processes * (value - value.detach()) + value.detach() / self.micro_batches


def count_step(
    per_batch: Iterable[Mapping[str, int]], gather: Callable[[Tensor], Tensor], device: torch.device | str,
    counted: Sequence[str],
) -> dict[str, float]:
    """The counts of one optimiser step: summed over this process's micro-batches, then over all processes.

    `gather` returns the values of all processes in the first dimension (`Accelerator.gather`). `counted`: the names that the
    task declares, the same in every process, whether it has batches or not.

    Raises:
        CompatibilityError: a batch was counted by other names.
    """
    totals: dict[str, int] = dict.fromkeys(counted, 0)
    for counts in per_batch:
        if counts.keys() != totals.keys():
            raise CompatibilityError(f"the task declares that it counts {all_of(list(counted))}, and counted "
                                     f"{all_of(list(counts))} in a batch: `counted` and `counts` have to name the same.")
        for name, number in counts.items():
            totals[name] += number
    local = torch.tensor([list(totals.values())], dtype=torch.int64, device=device)
    return dict(zip(totals, gather(local).sum(0).double().tolist(), strict=True))
