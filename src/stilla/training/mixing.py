"""Labelled and unlabelled examples in one step, at a share that may change over training.

An epoch remains as many examples as there are of both. Each kind is passed over by itself, in an order that is drawn anew
for every pass, and each step takes the next of either: with four in five unlabelled ones, the fewer labelled ones come
around more often. What a step takes follows from seed, share and the number of the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.recipe.schedule import Schedule


@dataclass(frozen=True)
class Mixing:
    """unlabelled: (examples,) which of them are. share: of those in a step. size: examples of a whole step. steps: of the
    training, over which the share changes."""

    unlabelled: NDArray[np.bool_]
    share: Schedule
    size: int
    steps: int
    seed: int

    @classmethod
    def of(cls, unlabelled: NDArray[np.bool_] | None, share: Schedule, *, size: int, steps: int, seed: int) -> Mixing:
        """Raises:
            CompatibilityError: there are not both kinds of examples.
        """
        if unlabelled is None or not unlabelled.any() or unlabelled.all():
            are = "labelled" if unlabelled is None or not unlabelled.any() else "unlabelled"
            raise CompatibilityError(f"a share of unlabelled examples was asked for, and all examples are {are}; leave it "
                                     "out, or give both kinds (the label of an example without one is -100, or NaN where it "
                                     "is a number)")
        return cls(unlabelled, share, size, steps, seed)

    def drawn(self, epoch: int) -> list[tuple[list[int], list[int]]]:
        """The labelled and the unlabelled examples of every step of an epoch."""
        first = epoch * self._per_epoch
        whole, some = self._upto(first + self._per_epoch)
        return [(self._taken(False, whole[step] - some[step], whole[step + 1] - some[step + 1]),
                 self._taken(True, some[step], some[step + 1])) for step in range(first, first + self._per_epoch)]

    def seen(self, steps: int) -> tuple[int, int]:
        """How many labelled and unlabelled examples so many steps have taken at least once."""
        whole, some = self._upto(steps)
        many = int(self.unlabelled.sum())
        return min(whole[steps] - some[steps], len(self.unlabelled) - many), min(some[steps], many)

    @property
    def _per_epoch(self) -> int:
        return -(-len(self.unlabelled) // self.size)

    def _upto(self, steps: int) -> tuple[list[int], list[int]]:
        """(steps + 1 or more,) how many examples were taken before each step, and how many unlabelled ones: the nearest to
        the sum of the shares, so that every step has as many as its share says, and none is lost to rounding."""
        if not self._taken_before or len(self._taken_before[0][0]) <= steps:
            self._taken_before[:] = [self._sums(max(steps, self.steps))]
        return self._taken_before[0]

    def _sums(self, steps: int) -> tuple[list[int], list[int]]:
        rest = len(self.unlabelled) - self.size * (self._per_epoch - 1)
        number = np.arange(steps)
        sizes = np.where((number + 1) % self._per_epoch == 0, rest, self.size)
        shares = np.array([self.share(step / max(self.steps, 1)) for step in range(steps)])
        whole = np.concatenate([[0], np.cumsum(sizes)])
        some = np.floor(np.concatenate([[0.0], np.cumsum(shares * sizes)]) + 0.5)
        return whole.astype(int).tolist(), some.astype(int).tolist()

    def _taken(self, unlabelled: bool, start: int, end: int) -> list[int]:
        """What stands from one place to another of all passes over one kind, end to end."""
        found: list[int] = []
        count = len(self._members[unlabelled])
        while start < end:
            turn, place = divmod(start, count)
            part = self._order(unlabelled, turn)[place : place + end - start]
            found += part
            start += len(part)
        return found

    def _order(self, unlabelled: bool, turn: int) -> list[int]:
        """A kind in the order of one pass over it."""
        if (known := self._orders.get(unlabelled)) is None or known[0] != turn:
            members = self._members[unlabelled]
            # a whole number of its own for every pass and kind: epochs of other samplers never come so far
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + turn) * 2 + unlabelled + (1 << 60))
            order = members[torch.randperm(len(members), generator=generator).numpy()].tolist()
            self._orders[unlabelled] = (turn, order)
        return self._orders[unlabelled][1]

    @cached_property
    def _members(self) -> Sequence[NDArray[np.int64]]:
        return np.flatnonzero(~self.unlabelled), np.flatnonzero(self.unlabelled)

    @cached_property
    def _taken_before(self) -> list[tuple[list[int], list[int]]]:
        return []

    @cached_property
    def _orders(self) -> dict[bool, tuple[int, list[int]]]:
        return {}
