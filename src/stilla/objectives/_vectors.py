"""What the objectives over vectors of texts share."""

from __future__ import annotations

from stilla.errors import CompatibilityError
from stilla.signals import Dims, Signals


def vector_problems(name: str, student: Dims, teacher: Dims | None) -> list[str]:
    """Why vectors cannot be compared, in words that say what to do."""
    if teacher is None:
        return [f"`{name}` needs a teacher"]
    if not student.embedding or not teacher.embedding:
        return [f"`{name}` compares the vectors of texts, and this task's models give none. Use `hidden` with `pooling`"]
    return []


def refuse_unlike(name: str, student: Signals, teacher: Signals) -> None:
    """Raises:
        CompatibilityError: the two said vectors of other texts, or none.
    """
    if not student.embeddings or student.embeddings.keys() != teacher.embeddings.keys():
        raise CompatibilityError(f"`{name}`: got vectors of {sorted(student.embeddings)} from the student and of "
                                 f"{sorted(teacher.embeddings)} from the teacher; expected the same of both")
