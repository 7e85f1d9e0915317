"""Hidden states of a stack of layers, where in a picture they lie, and one vector of an example's positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pooling = Literal["mean", "first", "last", "max"]
"""How an example's positions become one vector, its embedding."""


@dataclass(frozen=True)
class Grid:
    """Where in a picture positions lie: row by row, after the first `prefix` of them, which show no place (a class token)."""

    height: int
    width: int
    prefix: int = 0


@dataclass(frozen=True)
class Stack:
    """The hidden states of one layer stack: [0] enters the first layer, [i] leaves layer i - 1.

    `mask` is True at valid tokens; `None` where every position is valid (images). `grids`: of each state of a picture, where
    its positions lie; None where that is not known, empty where nothing is.
    """

    hidden_states: Sequence[Float[Tensor, "batch _ _"]]  # positions and width: stages change both
    mask: Bool[Tensor, "batch _"] | None = None
    grids: Sequence[Grid | None] = ()

    def pooled(self, index: int, how: Pooling) -> Float[Tensor, "batch width"]:
        """One vector per example of `hidden_states[index]`: the mean of its valid positions, the first or the last of them,
        or the largest of each number.

        In at least float32; zero where an example has no valid position.
        """
        states = self.hidden_states[index]
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        valid = states.new_ones(states.shape[:2], dtype=torch.bool) if self.mask is None else self.mask
        if how == "mean":
            some = valid.sum(1, keepdim=True).clamp_min(1)
            # chosen and not multiplied: padding may hold what is no number
            return torch.where(valid.unsqueeze(-1), states, 0).sum(1) / some
        if how == "max":
            largest = torch.where(valid.unsqueeze(-1), states, torch.finfo(states.dtype).min).amax(1)
            return torch.where(valid.any(1, keepdim=True), largest, 0)
        places = torch.arange(valid.shape[1], device=valid.device)
        worth = -places if how == "first" else places
        place = torch.where(valid, worth, -valid.shape[1]).argmax(1)
        chosen = states[torch.arange(len(states), device=states.device), place]
        return torch.where(valid.any(1, keepdim=True), chosen, 0)
