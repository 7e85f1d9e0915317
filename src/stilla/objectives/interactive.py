"""The student's pictures among the teacher's texts, and its texts among the teacher's pictures (CLIP-KD's interactive
contrastive learning: Yang et al. 2024, arXiv:2307.12732)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stilla.objectives import _pairs
from stilla.objectives._vectors import Turn, refuse_unlike, vector_problems, wider
from stilla.objectives.base import LayerMap, StepTableObjective
from stilla.signals import Dims, Signals


class Interactive(StepTableObjective):
    """How well the student's vector of a picture finds its text among the teacher's vectors of all texts of the step, and its
    vector of a text the picture among the teacher's.

        ½ (InfoNCE(scale · cos(s_pictures, t_texts)) + InfoNCE(scale · cos(t_pictures, s_texts)))

    with the teacher's scale, InfoNCE as in `contrastive` with `softmax`: of a student that is its teacher, what the teacher's
    own would be. The teacher's vectors do not move, so the student's are led to where they can be compared with them. Vectors
    that are narrower than the teacher's are turned into its space by a layer with orthonormal columns that is learnt with the
    student and is no part of it. Of queries and what answers them likewise. How a step is cut changes nothing.
    """

    count = "labelled"

    def __init__(self) -> None:
        super().__init__()
        self.width = 0
        self.turn: nn.Module | None = None

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return vector_problems("interactive", student, teacher) or (
            [] if teacher is None else [f"{one}. Use `affinities`" for one in wider("interactive", student, teacher)])

    def unpaired(self, *, pairs: bool) -> list[str]:
        return _pairs.unpaired(pairs=pairs)

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        assert teacher is not None  # a problem before
        self.width = teacher.embedding
        if student.embedding != teacher.embedding:
            self.turn = Turn(student.embedding, teacher.embedding)

    def entries(self, student: Signals, teacher: Signals | None, progress: float) -> Float[Tensor, "entries numbers"]:
        assert teacher is not None  # it needs one
        refuse_unlike("interactive", student, teacher)
        vectors = _pairs.joined(student)
        return _pairs.entries("interactive", student, teacher, vectors if self.turn is None else self.turn(vectors.float()))

    def loss(self, sums: Float[Tensor, "entries numbers"], progress: float) -> Float[Tensor, ""]:
        made = _pairs.table(sums, self.width)
        one = _pairs.products(made.student.first, made.teacher.second, made.teacher)
        other = _pairs.products(made.teacher.first, made.student.second, made.teacher)
        return 0.5 * (_pairs.infonce(one, made) + _pairs.infonce(other, made))
