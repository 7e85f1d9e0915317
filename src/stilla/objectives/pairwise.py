"""Which parts of a picture are alike (pair-wise distillation: Liu et al. 2019, arXiv:1903.04197)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import RecipeError
from stilla.objectives._maps import maps_of
from stilla.objectives.base import FeatureObjective, LayerMap, LogitObjective
from stilla.signals import Dims, Signals


class Pairwise(LogitObjective, FeatureObjective):
    """The squared difference of how alike two parts of a picture are to student and teacher, mean over all pairs of parts.

    A picture is cut into `nodes` x `nodes` parts (or as many as the grid has places, where that is fewer). With x_i the mean
    over part i of a model's class probabilities, and a_{ij} = cos(x_i, x_j), mean over pictures:

        1 / n² Σ_i Σ_j (aˢ_{ij} - aᵗ_{ij})²,  n parts

    The authors compare features of two networks; here it is what both say, so that no projection is needed and any two
    families can be compared. It says nothing of which classes parts are of: `logits` or `labels` have to stand beside it.
    """

    count = "pictures"

    def __init__(self, *, nodes: int = 16) -> None:
        super().__init__()
        if not 2 <= nodes <= 64:
            raise RecipeError(f"nodes: got {nodes}; expected a whole number from 2 to 64 (all pairs of nodes² parts are "
                              "compared)")
        self.nodes = nodes

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 2, "`pairwise` compares distributions over classes, and these models have one "
                           "output")

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        said, told = (self._alike(maps, student.grid) for maps in maps_of(self, student, teacher))
        return (said - told).square().mean((1, 2)).sum()

    def _alike(
        self, maps: Float[Tensor, "pictures places classes"], grid: tuple[int, int] | None
    ) -> Float[Tensor, "pictures parts parts"]:
        assert grid is not None  # looked at where maps were made
        down, across = grid
        said = maps.softmax(-1).transpose(1, 2).unflatten(2, (down, across))
        parts = F.adaptive_avg_pool2d(said, (min(self.nodes, down), min(self.nodes, across))).flatten(2)
        unit = F.normalize(parts, dim=1)
        return torch.einsum("bcn,bcm->bnm", unit, unit)
