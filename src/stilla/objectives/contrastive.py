"""Pictures told apart by their texts, and queries by what answers them: what a student would learn from pairs without a
teacher (CLIP: Radford et al. 2021, arXiv:2103.00020; SigLIP: Zhai et al. 2023, arXiv:2303.15343; of texts: Henderson et al.
2017, arXiv:1705.00652)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from stilla.errors import RecipeError
from stilla.objectives import _pairs
from stilla.objectives.base import LayerMap, StepTableObjective
from stilla.signals import Dims, Signals


class Contrastive(StepTableObjective):
    """How well the student finds the text of every picture of a step among all of its texts, and the other way round; or what
    answers every query among all answers of the step, and what is known to answer none.

    With z = scale · cos(picture, text) + bias, its own scale and bias:

    - `softmax`: ½ (mean over pictures of -log softmax over texts, at what belongs to it + the same of texts over pictures).
      Where several belong to it (five captions, two pictures of one class), the mean over them. Of queries the first half
      alone, whole (`symmetric: true` takes both).
    - `sigmoid`: -1/texts Σ log σ(± z) over all pictures and texts, + where they belong together.

    By default `sigmoid` where the model has a bias, else `softmax`. Equal texts belong to the same: no picture is told
    apart from a text that is its own word for word, no query from its answer in another row, nor from itself where it answers
    another. The size of a step decides how hard it is, how a step is cut changes nothing.
    """

    needs_teacher = False
    count = "labelled"

    def __init__(self, *, compare: Literal["softmax", "sigmoid"] | None = None, symmetric: bool | None = None) -> None:
        super().__init__()
        if compare == "sigmoid" and symmetric is not None:
            raise RecipeError("symmetric: says which halves of `softmax` are taken; a `sigmoid` has none. Leave it out")
        self.compare = compare
        self.symmetric = symmetric
        self.width = 0

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return [] if student.embedding else ["`contrastive` compares vectors, and the student gives none"]

    def unpaired(self, *, pairs: bool) -> list[str]:
        return _pairs.unpaired(pairs=pairs)

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        self.width = student.embedding

    def entries(self, student: Signals, teacher: Signals | None, progress: float) -> Float[Tensor, "entries numbers"]:
        return _pairs.entries("contrastive", student, None)

    def loss(self, sums: Float[Tensor, "entries numbers"], progress: float) -> Float[Tensor, ""]:
        made = _pairs.table(sums, self.width)
        whole = made.student.bias is None or self.symmetric is not None
        compared = self.compare or ("softmax" if whole else "sigmoid")
        logits = _pairs.products(made.student.first, made.student.second, made.student)
        if compared == "sigmoid":
            return _pairs.sigmoid(logits, made)
        return _pairs.infonce(logits, made, both=not made.alike if self.symmetric is None else self.symmetric)
