"""What a teacher finds in a picture, whatever its queries: paired at the output, weighted by how sure it is (DETRDistill:
Chang et al. 2023, arXiv:2211.10156; KD-DETR: Wang et al. 2024, arXiv:2211.08071)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives._matching import giou, pairs
from stilla.objectives.base import StepFeatureObjective
from stilla.recipe.section import TEMPERATURE, WEIGHT
from stilla.signals import Signals


class Queries(StepFeatureObjective):
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
        super().__init__()
        for name, value in (("classes", classes), ("l1", l1), ("giou", giou), ("nothing", nothing)):
            if not 0 <= value <= WEIGHT:
                raise RecipeError(f"{name}: got {value}; expected a number from 0 to {WEIGHT:,.0f}")
        if not 0 < temperature <= TEMPERATURE:
            raise RecipeError(f"temperature: got {temperature}; expected a number above 0, up to {TEMPERATURE:g}")
        self.classes, self.l1, self.giou, self.nothing, self.temperature = classes, l1, giou, nothing, temperature

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        found, told = student.detections, teacher.detections
        if found is None or told is None:
            raise CompatibilityError("`queries` needs what both models find in pictures; it is for task: object-detection")
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        target, boxes = told.independent().to(found.logits.device, exact), told.boxes.to(found.logits.device, exact)
        losses, sure = [], boxes.new_tensor(float(len(boxes)))
        for one in (found, *found.earlier):
            said, ours = one.independent().to(exact), one.boxes.to(exact)
            if said.shape[-1] != target.shape[-1]:
                raise CompatibilityError(f"`queries`: the student has {said.shape[-1]} classes, the teacher "
                                         f"{target.shape[-1]}; expected the same")
            losses += [self._of_picture(*of_both) for of_both in zip(said, ours, target, boxes)]
        sure = sure + target.sigmoid().amax(-1).sum()
        return torch.stack([torch.stack(losses).sum() if losses else sure.new_zeros(()), sure])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        return sums[0] / sums[1].clamp_min(1)

    def _of_picture(
        self, said: Float[Tensor, "ours classes"], ours: Float[Tensor, "ours 4"], target: Float[Tensor, "theirs classes"],
        theirs: Float[Tensor, "theirs 4"]
    ) -> Float[Tensor, ""]:
        sure = target.sigmoid().amax(-1)
        surest = sure.argsort(descending=True, stable=True)[: len(said)]
        target, theirs, sure = target[surest], theirs[surest], sure[surest]
        with torch.no_grad():
            apart = torch.cdist(said.sigmoid(), target.sigmoid(), p=1)
            cost = apart + 5 * torch.cdist(ours, theirs, p=1) + 2 * (1 - giou(ours[:, None], theirs[None]))
            mine, yours = pairs(cost * sure)
        weight = said.new_zeros(len(said)).index_put((mine,), sure[yours])
        # log 0, as a number that has a gradient: what answers to nothing
        goal = torch.full_like(said, torch.finfo(said.dtype).min / 4).index_put((mine,), target[yours])
        apart = self.temperature**2 * _bernoulli_kl(goal / self.temperature, said / self.temperature).sum(-1)
        box, place = ours[mine], theirs[yours]
        far = self.l1 * (box - place).abs().sum(-1) + self.giou * (1 - giou(box, place))
        return self.classes * ((weight + self.nothing * (1 - weight)) * apart).sum() + (sure[yours] * far).sum()


def _bernoulli_kl(target: Float[Tensor, "*some"], said: Float[Tensor, "*some"]) -> Float[Tensor, "*some"]:
    """KL of sigmoid(target) from sigmoid(said) in nats."""
    p = target.sigmoid()
    there = torch.where(p > 0, p * (F.logsigmoid(target) - F.logsigmoid(said)), 0)
    return there + (1 - p) * (F.logsigmoid(-target) - F.logsigmoid(-said))
