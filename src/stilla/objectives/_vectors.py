"""What the objectives over vectors of texts and pictures share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.signals import Dims, Signals


def vector_problems(name: str, student: Dims, teacher: Dims | None) -> list[str]:
    """Why vectors cannot be compared, in words that say what to do."""
    if teacher is None:
        return [f"`{name}` needs a teacher"]
    if student.embedding and not teacher.embedding:
        return [f"`{name}` compares the vectors of texts or pictures, and this teacher gives none: it scores what stands "
                "beside a query. Use `margins` or `listwise`, or `logits`"]
    if not student.embedding:
        return [f"`{name}` compares the vectors of texts or pictures, and this task's models give none. Use `hidden` with "
                "`pooling`"]
    return []


def refuse_unlike(name: str, student: Signals, teacher: Signals) -> None:
    """Raises:
        CompatibilityError: the two said vectors of other texts, or none.
    """
    if not student.embeddings or student.embeddings.keys() != teacher.embeddings.keys():
        raise CompatibilityError(f"`{name}`: got vectors of {sorted(student.embeddings)} from the student and of "
                                 f"{sorted(teacher.embeddings)} from the teacher; expected the same of both")


def wider(name: str, student: Dims, teacher: Dims) -> list[str]:
    """Why the student's vectors cannot be turned into the teacher's space, in words; empty if they can."""
    if student.embedding <= teacher.embedding:
        return []
    return [f"`{name}`: the student's vectors have {student.embedding} numbers, the teacher's {teacher.embedding}; expected "
            "as many or fewer"]


class Turn(nn.Module):
    """x -> W x, W the orthonormal columns of a QR decomposition (R's diagonal positive) of what is trained."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(wide, narrow)))

    def forward(self, vectors: Float[Tensor, "batch narrow"]) -> Float[Tensor, "batch wide"]:
        columns, upper = torch.linalg.qr(self.weight)
        turned: Tensor = vectors @ (columns * upper.diagonal().sign()).T.to(vectors.dtype)
        return turned
