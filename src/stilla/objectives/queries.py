"""What a teacher finds in a picture, whatever its queries: paired at the output, weighted by how sure it is (DETRDistill:
Chang et al. 2023, arXiv:2211.10156; KD-DETR: Wang et al. 2024, arXiv:2211.08071)."""

from __future__ import annotations

from stilla.objectives._sets import SetTeacher
from stilla.objectives._shapes import BoxShape
from stilla.objectives._weights import some, weighed


class Queries(SetTeacher):
    """How far what the student finds is from what the teacher finds, by pairs of their guesses.

    With p the teacher's probabilities and w = max_c p_c how sure it is of a guess, guesses are paired so that
    Σ w (Σ_c |p - q| + 5 · L1 + 2 · (1 - GIoU)) is least; of a teacher with more guesses than the student has, the surest are.
    Then over pairs

        Σ (w + nothing · (1 - w)) · classes · T² Σ_c KL(p_c || q_c) + w (l1 · |b - t|₁ + giou · (1 - GIoU)),

    p_c and q_c each class by itself (softened by T), so that softmaxes and sigmoids can be compared; a guess of the student's
    without a partner has p = 0 and w = 0. Divided by Σ w and 1 for every picture, of the whole step. Needs no labels. The
    same of what the student's earlier layers find, where its outputs have it, against the teacher's last.
    """

    count = "objects"

    def __init__(
        self, *, classes: float = 1.0, l1: float = 5.0, giou: float = 2.0, nothing: float = 0.1, temperature: float = 1.0
    ) -> None:
        weighed(classes=classes, l1=l1, giou=giou, nothing=nothing)
        some(classes=classes, l1=l1, giou=giou)
        super().__init__(BoxShape(l1, giou), classes=classes, nothing=nothing, temperature=temperature)
