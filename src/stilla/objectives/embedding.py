"""The teacher's vector of every text or picture (Reimers and Gurevych 2020, arXiv:2004.09813; LEAF, arXiv:2509.12539)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stilla.objectives._vectors import Turn, refuse_unlike, vector_problems, wider
from stilla.objectives.base import FeatureObjective, LayerMap
from stilla.signals import Dims, Signals


class Embedding(FeatureObjective):
    """How far the student's vectors are from the teacher's, mean over texts.

    - `cosine`: 1 - cos(s, t): half the squared distance of the two at length 1. Blind to length.
    - `l2`: |s - t|², as the models give them: for vectors whose length means something (compared by `dot`).

    Needs no labels, no pairs and no negatives, and whatever is near in the teacher's space becomes near in the student's. The
    student's vectors have the teacher's width (a layer of its own sees to that, and is saved with it), or are narrower by the
    recipe: then W s is compared, W learnt with orthonormal columns. It keeps all lengths and angles, so that the student's
    own vectors are as near to each other as what was compared: principal components that are learnt on the way. W is trained
    and checkpointed with the student, and never part of it.
    """

    count = "examples"

    def __init__(self, *, distance: Literal["cosine", "l2"] = "cosine") -> None:
        super().__init__()
        self.distance = distance
        self.turn: nn.Module | None = None

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return vector_problems("embedding", student, teacher) or (
            [] if teacher is None else [f"{one}. Use `similarities`" for one in wider("embedding", student, teacher)])

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        assert teacher is not None  # a problem before
        if student.embedding != teacher.embedding:
            self.turn = Turn(student.embedding, teacher.embedding)

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        refuse_unlike("embedding", student, teacher)
        sums = [self._distances(student.embeddings[name], told).sum() for name, told in teacher.embeddings.items()]
        return torch.stack(sums).sum()

    def _distances(
        self, said: Float[Tensor, "batch narrow"], told: Float[Tensor, "batch width"]
    ) -> Float[Tensor, " batch"]:
        exact = torch.promote_types(said.dtype, torch.float32)
        said, told = said.to(exact), told.to(exact)
        if self.turn is not None:
            said = self.turn(said)
        if self.distance == "l2":
            return (said - told).square().sum(-1)
        return 1 - F.cosine_similarity(said, told, dim=-1)
