"""How near the texts of a step are to each other (Tung and Mori 2019, arXiv:1907.09682)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import RecipeError
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

    first: the mean of this and of the same over the first so many numbers of the student's vectors, against the teacher's
    whole ones: so that they can be cut there (Matryoshka; Kusupati et al. 2022, arXiv:2205.13147).
    """

    def __init__(self, *, first: list[int] | None = None) -> None:
        super().__init__()
        if first is not None and (not first or min(first) < 1 or len(set(first)) < len(first)):
            raise RecipeError(f"first: got {first}; expected whole numbers above 0, each once, or leave it out")
        self.first = tuple(first or ())
        self.widths = (0, 0)

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return vector_problems("similarities", student, teacher) or [
            f"`similarities`: first: got {size}, and the student's vectors have {student.embedding} numbers; expected fewer"
            for size in self.first if size >= student.embedding]

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        assert teacher is not None  # a problem before
        self.widths = (student.embedding, teacher.embedding)

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        refuse_unlike("similarities", student, teacher)
        ours, theirs = (torch.cat([said.embeddings[name] for name in teacher.embeddings]) for said in (student, teacher))
        told = _directions(theirs)
        parts = [_directions(ours[:, :size]) for size in self._sizes]
        products = [(one.T @ other).flatten() for part in parts for one, other in ((part, part), (part, told))]
        return torch.cat([*products, (told.T @ told).flatten(), told.new_full((1,), len(told))])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        wide = self.widths[1]
        each = [size * other for size in self._sizes for other in (size, wide)]
        *products, told, number = sums.split([*each, wide * wide, 1])
        squares = sum(own.square().sum() - 2 * between.square().sum() for own, between in zip(products[::2], products[1::2]))
        whole = squares / len(self._sizes) + told.square().sum()
        # a step of one text has no pairs, and nothing to learn
        loss: Tensor = whole / (number * (number - 1)).clamp_min(1).squeeze()
        return loss

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.widths[0], *self.first)


def _directions(vectors: Float[Tensor, "texts width"]) -> Float[Tensor, "texts width"]:
    """Of length 1, in float64: the three squares above are large and nearly cancel."""
    return F.normalize(vectors.double(), dim=-1)
