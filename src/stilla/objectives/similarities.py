"""How near the texts of a step are to each other (Tung and Mori 2019, arXiv:1907.09682)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._vectors import refuse_unlike, vector_problems
from stilla.objectives.base import LayerMap, StepFeatureObjective
from stilla.signals import Dims, Signals


class Similarities(StepFeatureObjective):
    """The mean squared difference of the cosines of all pairs of a step's texts, the student's from the teacher's.

        1 / (n (n - 1)) Σ_i Σ_j (cos(s_i, s_j) - cos(t_i, t_j))²

    over all n texts of an optimiser step. With S and T of unit rows the double sum is |SᵀS|² - 2 |SᵀT|² + |TᵀT|², made of
    sums over texts alone: what a step is cut into changes nothing, and no process needs another's texts. The size of a step
    does. It says nothing of where the vectors lie, so widths may differ, and the teacher's vectors cannot stand beside the
    student's in one index.
    """

    def __init__(self) -> None:
        super().__init__()
        self.widths = (0, 0)

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return vector_problems("similarities", student, teacher)

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        assert teacher is not None  # a problem before
        self.widths = (student.embedding, teacher.embedding)

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        refuse_unlike("similarities", student, teacher)
        ours, theirs = (_directions(torch.cat([said.embeddings[name] for name in teacher.embeddings]))
                        for said in (student, teacher))
        count = ours.new_full((1,), len(ours))
        products = [(one.T @ other).flatten() for one, other in ((ours, ours), (ours, theirs), (theirs, theirs))]
        return torch.cat([*products, count])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        narrow, wide = self.widths
        own, between, told, number = sums.split([narrow * narrow, narrow * wide, wide * wide, 1])
        squares = own.square().sum() - 2 * between.square().sum() + told.square().sum()
        # a step of one text has no pairs, and nothing to learn
        loss: Tensor = squares / (number * (number - 1)).clamp_min(1).squeeze()
        return loss


def _directions(vectors: Float[Tensor, "texts width"]) -> Float[Tensor, "texts width"]:
    """Of length 1, in float64: the three squares above are large and nearly cancel."""
    return F.normalize(vectors.double(), dim=-1)
