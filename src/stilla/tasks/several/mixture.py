"""Which task's examples an epoch takes: of a task with n of them a share of n^(1/T) (Raffel et al. 2020, arXiv:1910.10683,
section 3.5.2), by seed and epoch alone.

An epoch has as many examples as there are. Each task is passed over by itself, in an order that is drawn anew for every pass,
and an epoch goes on where the one before has ended: whatever the share, all of a task's examples come equally often.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


def quotas(sizes: Sequence[int], temperature: float) -> list[int]:
    """How many of each task's examples an epoch of all of them takes: in proportion to n^(1/T), by largest remainders; of
    every task at least one."""
    total, exponents = sum(sizes), np.array(sizes, float) ** (1 / temperature)
    exact = total * exponents / exponents.sum()
    found = np.maximum(np.floor(exact), 1).astype(int)
    order = np.argsort(found - exact, kind="stable")
    for place in order[: max(0, total - int(found.sum()))]:
        found[place] += 1
    while found.sum() > total:  # many tiny tasks beside a large one
        found[int(np.argmax(found - exact))] -= 1
    return [int(one) for one in found]


class Mixture:
    """sizes: of every task's examples, which stand one task after the other. `chosen`: those of the present epoch."""

    def __init__(self, sizes: Sequence[int], temperature: float, seed: int) -> None:
        self.sizes, self.seed = tuple(sizes), seed
        self.quotas = quotas(sizes, temperature)
        self.chosen = self._drawn(0)

    def set_epoch(self, epoch: int) -> None:
        self.chosen = self._drawn(epoch)

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def redraws(self) -> bool:
        """Whether an epoch has other examples than the one before."""
        return list(self.sizes) != self.quotas

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        starts = np.cumsum([0, *self.sizes[:-1]])
        return np.concatenate([start + self._of_part(part, epoch) for part, start in enumerate(starts)])

    def _of_part(self, part: int, epoch: int) -> NDArray[np.int64]:
        """The next of one task's passes, end to end; all in their order where an epoch is a pass."""
        count, quota = self.sizes[part], self.quotas[part]
        if count == quota:
            return np.arange(count)
        start, end = epoch * quota, (epoch + 1) * quota
        turns = [np.random.default_rng((self.seed, part, turn)).permutation(count)
                 for turn in range(start // count, -(-end // count))]
        first = start // count * count
        taken: NDArray[np.int64] = np.concatenate(turns)[start - first : end - first]
        return taken


class Drawn(Sequence[int]):
    """Numbers of all examples as those of the present epoch."""

    def __init__(self, values: Sequence[int], mixture: Mixture) -> None:
        self.values, self.mixture = values, mixture

    def __len__(self) -> int:
        return len(self.mixture)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self.values[int(place)] for place in self.mixture.chosen[index]]
        return self.values[int(self.mixture.chosen[index])]
