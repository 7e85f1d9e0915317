"""The student's weights against the teacher's, where both have one of the same name and shape (L2-SP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import RecipeError
from stilla.objectives.base import WeightObjective


class Weights(WeightObjective):
    """How far the student's weights are from the teacher's, where both have one of the same name and shape: L2-SP.

    sum: ½ Σ (θ_S - θ_T)², whose gradient is θ_S - θ_T: a step of plain gradient descent with the rate a is
    θ_S <- θ_S + a (θ_T - θ_S). mean: the same divided by the number of weights. A layer of a student that was cut answers to
    the one that it came from. Li et al. 2018, arXiv:1802.01483, eq. 3, with the teacher's weights for the starting point.
    """

    def __init__(self, parts: list[str] | None = None, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        if parts is not None and not parts:
            raise RecipeError("parts: got an empty list; expected parts of the student (embeddings, layers.0-2, head), or "
                              "leave it out for all")
        self.parts = parts
        self.reduction = reduction

    def total(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, ""]:
        squares = torch.stack([(ours - theirs).square().sum() for ours, theirs in pairs]).sum() / 2
        return squares if self.reduction == "sum" else squares / sum(ours.numel() for ours, _ in pairs)
