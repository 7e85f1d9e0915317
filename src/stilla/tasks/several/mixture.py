"""Which task's examples an epoch takes: of a task with n of them a share of n^(1/T) (Raffel et al. 2020, arXiv:1910.10683,
section 3.5.2), by seed and epoch alone.

An epoch has as many examples as there are. Each task is passed over by itself, in an order that is drawn anew for every pass,
and an epoch goes on where the one before has ended: whatever the share, all of a task's examples come equally often. So are
those of a task that have labels and those that have none, of which an epoch takes as many as in proportion: what stands at a
place of the epoch is of one task and of one kind in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


def quotas(sizes: Sequence[int], temperature: float) -> list[int]:
    """How many of each task's examples an epoch of all of them takes: in proportion to n^(1/T), by largest remainders; of
    every task at least one."""
    return _shares(sum(sizes), np.array(sizes, float) ** (1 / temperature))


def _shares(total: int, weights: NDArray[np.float64]) -> list[int]:
    """A number cut in proportion, into at least one each while there are enough."""
    exact = total * weights / weights.sum()
    found = np.maximum(np.floor(exact), 1).astype(int)
    order = np.argsort(found - exact, kind="stable")
    for place in order[: max(0, total - int(found.sum()))]:
        found[place] += 1
    while found.sum() > total:  # many tiny tasks beside a large one
        found[int(np.argmax(found - exact))] -= 1
    return [int(one) for one in found]


@dataclass(frozen=True)
class Group:
    """Examples of one task and one kind, and how many of them an epoch takes. `key`: what their order is drawn by."""

    members: NDArray[np.int64]
    quota: int
    unlabelled: bool
    key: tuple[int, ...]

    def drawn(self, epoch: int) -> NDArray[np.int64]:
        """The next of its passes, end to end; all in their order where an epoch is a pass."""
        count = len(self.members)
        if count == self.quota:
            return self.members
        start, end = epoch * self.quota, (epoch + 1) * self.quota
        turns = [np.random.default_rng((*self.key, turn)).permutation(count)
                 for turn in range(start // count, max(-(-end // count), start // count + 1))]
        first = start // count * count
        taken: NDArray[np.int64] = self.members[np.concatenate(turns)[start - first : end - first]]
        return taken


class Mixture:
    """sizes: of every task's examples, which stand one task after the other. unlabelled: which of all of them nobody has
    labelled. `chosen`: those of the present epoch."""

    def __init__(
        self, sizes: Sequence[int], temperature: float, seed: int, unlabelled: NDArray[np.bool_] | None = None
    ) -> None:
        self.sizes = tuple(sizes)
        self.quotas = quotas(sizes, temperature)
        self.marks = np.zeros(len(self), np.bool_) if unlabelled is None else unlabelled
        self.groups = tuple(one for part in range(len(sizes)) for one in self._groups(part, seed))
        self.chosen = self._drawn(0)

    def set_epoch(self, epoch: int) -> None:
        self.chosen = self._drawn(epoch)

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def redraws(self) -> bool:
        """Whether an epoch has other examples than the one before."""
        return list(self.sizes) != self.quotas

    @property
    def unlabelled(self) -> NDArray[np.bool_]:
        """Of the places of an epoch, which hold an example that nobody has labelled."""
        return np.repeat([one.unlabelled for one in self.groups], [one.quota for one in self.groups])

    def seen(self, epochs: float, *, unlabelled: bool) -> int:
        """How many examples of a kind so many epochs have taken at least once, to a fraction of an epoch."""
        return sum(min(len(one.members), round(epochs * one.quota)) for one in self.groups if one.unlabelled == unlabelled)

    def _groups(self, part: int, seed: int) -> list[Group]:
        """Those of one task: what has labels, what has none."""
        start = sum(self.sizes[:part])
        marks = self.marks[start : start + self.sizes[part]]
        members = {kind: start + np.flatnonzero(marks == kind) for kind in (False, True) if (marks == kind).any()}
        own = _shares(self.quotas[part], np.array([len(one) for one in members.values()], float))
        return [Group(one, quota, kind, (seed, part, 1) if kind else (seed, part))
                for (kind, one), quota in zip(members.items(), own, strict=True)]

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        return np.concatenate([one.drawn(epoch) for one in self.groups])


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
