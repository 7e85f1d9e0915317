"""The hard labels: what a student would be trained on without a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives._analytic import cross_entropy
from stilla.objectives.base import Gradient, RowObjective, Softened
from stilla.signals import Form


class Labels(RowObjective):
    """Cross-entropy with the labels in nats, or the squared error where the labels are numbers.

    CE = -Σ_c t_c log softmax(student)_c, t = (1 - s) onehot + s / classes with `label_smoothing` s (Szegedy et al.
    2016, arXiv:1512.00567, sec. 7). Of one output and labels 0 and 1 (a candidate answers a query or not) it is that of the
    output's sigmoid: softmax over (0, student). Rows without a label (-100, or NaN for numbers) are zero and are not counted.
    """

    needs_teacher = False
    count = "labelled"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise RecipeError(f"label_smoothing: got {label_smoothing}; expected a number from 0 to below 1")
        self.label_smoothing = label_smoothing

    def unplaced(self, *, places: bool) -> list[str]:
        if not places or not self.label_smoothing:
            return []
        return ["with label_smoothing wants some probability in every class, and here most classes are no places where an "
                "answer can be. Leave label_smoothing out"]

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        if labels is None:
            raise CompatibilityError("`labels` needs labels, and this batch has none; train on labelled data, or leave "
                                     "the objective out")
        if not labels.is_floating_point():
            if logits.shape[-1] == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], -1)
            return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.label_smoothing:
            raise CompatibilityError("label_smoothing has no meaning for labels that are numbers; leave it out")
        known = ~torch.isnan(labels)
        error = logits.squeeze(-1) - torch.where(known, labels, 0).to(logits.dtype)
        return torch.where(known, error.square(), 0)

    def losses_and_gradients(
        self, student: Softened, teacher: Form | None, labels: Tensor | None, progress: float
    ) -> tuple[Float[Tensor, " rows"], Gradient]:
        if labels is None or labels.is_floating_point() or student.logits.shape[-1] == 1:
            return super().losses_and_gradients(student, teacher, labels, progress)
        return cross_entropy(student, labels, self.label_smoothing)
