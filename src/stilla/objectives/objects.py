"""The objects that the data say are in a picture: a set to be found (DETR: Carion et al. 2020, arXiv:2005.12872)."""

from __future__ import annotations

from stilla.objectives._sets import SetTarget
from stilla.objectives._shapes import BoxShape
from stilla.objectives._weights import some, weighed


class Objects(SetTarget):
    """How far what the student finds is from the objects of each picture, summed and divided by the number of objects, where
    a labelled picture counts as one more: so that one without objects teaches too, and how a step is cut changes nothing.

    Guesses and objects are paired so that the sum of costs is least (class + 5 · L1 - 2 · GIoU). Then

        classes · class loss + l1 · Σ |b - t|₁ over pairs + giou · Σ (1 - GIoU) over pairs,

    b and t as centre and size in shares of the picture. The class loss is, of a softmax with a class for nothing, the
    cross-entropy of every guess, those without an object `nothing` times; of sigmoids the focal loss of every guess and class
    (α 0.25, γ 2; Lin et al. 2017, arXiv:1708.02002). What layers before the last one find, where a model gives it in its
    outputs, learns the same and is added.
    """

    count = "objects"

    def __init__(self, *, classes: float = 1.0, l1: float = 5.0, giou: float = 2.0, nothing: float = 0.1) -> None:
        weighed(classes=classes, l1=l1, giou=giou, nothing=nothing)
        some(classes=classes, l1=l1, giou=giou)
        super().__init__(BoxShape(l1, giou), classes=classes, nothing=nothing)
