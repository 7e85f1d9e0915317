"""Slices of a model's tensors that can only be cut together, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor

NOBODYS, UNKNOWN = -1, -2
"""In the place of a unit: slices that stay whatever is cut; slices of which it could not be seen."""


@dataclass(frozen=True)
class Member:
    """One axis of a tensor. unit: for each of its indices the unit that it belongs to, or NOBODYS."""

    tensor: str
    axis: int
    unit: Int[Tensor, "index"] = field(repr=False)

    def kept(self, units: Int[Tensor, "unit"]) -> Int[Tensor, "index"]:
        """The indices that are left with these units, in their order."""
        return (torch.isin(self.unit, units) | (self.unit == NOBODYS)).nonzero().flatten()


@dataclass(frozen=True)
class Units:
    """Slices that can only be cut together, each of them or none.

    name: of the first sink, or of the number in the config. sinks: those members that the others reach the outputs
    through; with their slices zero a unit is as good as gone. None for the hidden state, which is read in many places.
    pools: so many runs of neighbours, of each of which as many have to stay (the heads of a group that shares its keys).
    """

    name: str
    count: int
    members: tuple[Member, ...]
    sinks: tuple[Member, ...] = ()
    pools: int = 1

    def only(self, kept: Int[Tensor, "unit"]) -> Units:
        """What is left of them in a model that was cut, numbered anew."""
        number = torch.full((self.count,), UNKNOWN)
        number[kept] = torch.arange(len(kept))

        def left(member: Member) -> Member:
            units = member.unit[member.kept(kept)]
            return replace(member, unit=torch.where(units == NOBODYS, units, number[units.clamp(min=0)]))

        return replace(self, count=len(kept), members=tuple(map(left, self.members)), sinks=tuple(map(left, self.sinks)))
