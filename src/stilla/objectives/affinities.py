"""Which texts of a step a teacher finds for every picture, and which pictures for every text (TinyCLIP's affinity mimicking:
Wu et al. 2023, arXiv:2309.12314)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.objectives import _pairs
from stilla.objectives._vectors import refuse_unlike, vector_problems
from stilla.objectives._weights import softening
from stilla.objectives.base import LayerMap, StepTableObjective
from stilla.signals import Dims, Signals


class Affinities(StepTableObjective):
    """KL from the teacher's distribution over a step's texts to the student's, mean over pictures; and the other way round.

        ½ T² (mean over pictures KL(p_t || p_s) + mean over texts KL(q_t || q_s))

    p = softmax over texts of scale · cos / T, q the same over pictures, each model with its own scale. Nobody has to say
    which text belongs to which picture, and widths may differ; it says nothing of where vectors lie. T is `temperature` (1
    unless given). Of queries and what stands beside them likewise. How a step is cut changes nothing; its size does.
    """

    count = "examples"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        softening(temperature)
        self.temperature = temperature
        self.width = 0

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return vector_problems("affinities", student, teacher)

    def unpaired(self, *, pairs: bool) -> list[str]:
        return _pairs.unpaired(pairs=pairs)

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        self.width = student.embedding

    def entries(self, student: Signals, teacher: Signals | None, progress: float) -> Float[Tensor, "entries numbers"]:
        assert teacher is not None  # it needs one
        refuse_unlike("affinities", student, teacher)
        return _pairs.entries("affinities", student, teacher)

    def loss(self, sums: Float[Tensor, "entries numbers"], progress: float) -> Float[Tensor, ""]:
        made = _pairs.table(sums, self.width)
        ours, theirs = (_pairs.apart(_pairs.products(one.first, one.second, one), made) / self.temperature
                        for one in (made.student, made.teacher))
        if not ours.numel():  # pictures or texts by themselves
            return ours.sum()
        return 0.5 * self.temperature**2 * (_kl(theirs, ours) + _kl(theirs.T, ours.T))


def _kl(teacher: Float[Tensor, "rows classes"], student: Float[Tensor, "rows classes"]) -> Float[Tensor, ""]:
    told, said = (torch.log_softmax(one, 1) for one in (teacher, student))
    return F.kl_div(said, told, reduction="sum", log_target=True) / len(teacher)
