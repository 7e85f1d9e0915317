"""What a teacher finds in a picture, with masks: `queries` for models that say of every place of the picture whose it is."""

from __future__ import annotations

from stilla.objectives._sets import SetTeacher
from stilla.objectives._shapes import MaskShape
from stilla.objectives._weights import some, weighed


class Masks(SetTeacher):
    """How far what the student finds is from what the teacher finds, by pairs of their guesses and all places of their masks.

    With p the teacher's probabilities of classes, t of places, and w = max_c p_c how sure it is of a guess, guesses are
    paired so that Σ w (2 Σ_c |p - q| + 5 · mask + 5 · dice) is least; of a teacher with more guesses than the student has,
    the surest are. Then over pairs

        Σ (w + nothing · (1 - w)) · classes · T² Σ_c KL(p_c || q_c) + w (mask · mean KL(t || σ(m)) + dice · dice),

    dice = 1 - (2 Σ σ(m) t + 1) / (Σ σ(m)² + Σ t² + 1), 0 where both say the same; p_c and q_c each class by itself (softened
    by T), a guess of the student's without a partner has p = 0 and w = 0. Divided by Σ w and 1 for every picture, of the
    whole step. Needs no labels. The same of what the student's earlier layers find, where its outputs have it, against the
    teacher's last.
    """

    count = "segments"

    def __init__(
        self, *, classes: float = 2.0, mask: float = 5.0, dice: float = 5.0, nothing: float = 0.1, temperature: float = 1.0
    ) -> None:
        weighed(classes=classes, mask=mask, dice=dice, nothing=nothing)
        some(classes=classes, mask=mask, dice=dice)
        super().__init__(MaskShape(mask, dice), classes=classes, nothing=nothing, temperature=temperature)
