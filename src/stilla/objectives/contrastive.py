"""Pictures told apart by their texts, and texts by their pictures: what a student would learn from pairs without a teacher
(CLIP: Radford et al. 2021, arXiv:2103.00020; SigLIP: Zhai et al. 2023, arXiv:2303.15343)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from stilla.objectives import _pairs
from stilla.objectives.base import LayerMap, StepTableObjective
from stilla.signals import Dims, Signals


class Contrastive(StepTableObjective):
    """How well the student finds the text of every picture of a step among all of its texts, and the other way round.

    With z = scale · cos(picture, text) + bias, its own scale and bias:

    - `softmax`: ½ (mean over pictures of -log softmax over texts, at what belongs to it + the same of texts over pictures).
      Where several belong to it (five captions, two pictures of one class), the mean over them.
    - `sigmoid`: -1/texts Σ log σ(± z) over all pictures and texts, + where they belong together.

    By default `sigmoid` where the model has a bias, else `softmax`. Equal texts are one: no picture is told apart from a text
    that is its own word for word. The size of a step decides how hard it is, how a step is cut changes nothing.
    """

    needs_teacher = False
    count = "labelled"

    def __init__(self, *, compare: Literal["softmax", "sigmoid"] | None = None) -> None:
        super().__init__()
        self.compare = compare
        self.width = 0

    def unpaired(self, *, pairs: bool) -> list[str]:
        return _pairs.unpaired(pairs=pairs)

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        self.width = student.embedding

    def entries(self, student: Signals, teacher: Signals | None, progress: float) -> Float[Tensor, "entries numbers"]:
        return _pairs.entries("contrastive", student, None)

    def loss(self, sums: Float[Tensor, "entries numbers"], progress: float) -> Float[Tensor, ""]:
        made = _pairs.table(sums, self.width)
        compared = self.compare or ("softmax" if made.student.bias is None else "sigmoid")
        logits = _pairs.products(made.student.pictures, made.student.texts, made.student)
        return (_pairs.sigmoid if compared == "sigmoid" else _pairs.infonce)(logits, made.right)
