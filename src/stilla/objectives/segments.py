"""The objects that the data say are in a picture, each with its mask: a set to be found (MaskFormer: Cheng et al. 2021,
arXiv:2107.06278; Mask2Former: Cheng et al. 2022, arXiv:2112.01527)."""

from __future__ import annotations

from stilla.objectives._sets import SetTarget
from stilla.objectives._shapes import MaskShape
from stilla.objectives._weights import some, weighed


class Segments(SetTarget):
    """How far what the student finds is from the objects of each picture and their masks, summed and divided by the number of
    objects, where a labelled picture counts as one more, as for `objects`.

    Guesses and objects are paired so that the sum of costs is least (2 · class + 5 · mask + 5 · dice). Then, over all places
    of the grid and not over some drawn at random,

        classes · class loss + Σ mask · mean KL(t || σ(m)) + dice · (1 - (2 Σ σ(m) t + 1) / (Σ σ(m)² + Σ t² + 1)) over pairs,

    m the guess's logits at places of the grid, t which share of each its object covers: of 0 and 1 the first is the binary
    cross-entropy. The class loss is the cross-entropy of every guess, those without an object `nothing` times. What layers
    before the last one find, where a model gives it in its outputs, learns the same and is added.
    """

    count = "segments"

    def __init__(self, *, classes: float = 2.0, mask: float = 5.0, dice: float = 5.0, nothing: float = 0.1) -> None:
        weighed(classes=classes, mask=mask, dice=dice, nothing=nothing)
        some(classes=classes, mask=mask, dice=dice)
        super().__init__(MaskShape(mask, dice), classes=classes, nothing=nothing)
