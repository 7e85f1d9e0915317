"""The objects that the data say are in a picture: a set to be found (DETR: Carion et al. 2020, arXiv:2005.12872)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives._matching import giou, pairs
from stilla.objectives.base import TargetObjective
from stilla.recipe.section import WEIGHT
from stilla.signals import Detections, Signals

_ALPHA, _GAMMA = 0.25, 2.0
"""Of the focal loss, as every detector of the family has them."""
_NO_OBJECT = -100


class Objects(TargetObjective):
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
        super().__init__()
        for name, value in (("classes", classes), ("l1", l1), ("giou", giou), ("nothing", nothing)):
            if not 0 <= value <= WEIGHT:
                raise RecipeError(f"{name}: got {value}; expected a number from 0 to {WEIGHT:,.0f}")
        self.classes, self.l1, self.giou, self.nothing = classes, l1, giou, nothing

    def total(self, student: Signals, progress: float) -> Float[Tensor, ""]:
        found, labels = student.detections, student.labels
        if found is None or labels is None:
            raise CompatibilityError("`objects` needs pictures and what is in them, and this batch has "
                                     f"{'no labels' if found is not None else 'no detections'}; leave the objective out")
        known = (~labels[:, :1, 0].isnan()).nonzero()[:, 0]
        sums = [self._of_set(one, labels, known) for one in (found, *found.earlier)]
        return torch.stack(sums).sum()

    def _of_set(
        self, found: Detections, labels: Float[Tensor, "batch most 5"], known: Int[Tensor, " labelled"]
    ) -> Float[Tensor, ""]:
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        logits, boxes = found.logits.to(exact)[known], found.boxes.to(exact)[known]
        labels = labels.to(logits.device, exact)[known]
        chosen, targets, classes = [], [], torch.full(logits.shape[:2], -1, dtype=torch.int64, device=logits.device)
        for place, objects in enumerate(labels):
            objects = objects[objects[:, 0] != _NO_OBJECT]
            kinds = objects[:, 0].long()
            ours, theirs = pairs(self._costs(logits[place], boxes[place], kinds, objects[:, 1:], found.exclusive))
            classes[place, ours] = kinds[theirs]
            chosen.append(boxes[place, ours])
            targets.append(objects[theirs, 1:])
        said = self._classes(logits, classes, found.exclusive)
        if not chosen:
            return self.classes * said + 0 * boxes.sum()
        box, target = torch.cat(chosen), torch.cat(targets)
        return (self.classes * said + self.l1 * (box - target).abs().sum()
                + self.giou * (1 - giou(box, target)).sum())

    def _costs(
        self, logits: Float[Tensor, "queries columns"], boxes: Float[Tensor, "queries 4"], kinds: Int[Tensor, " objects"],
        targets: Float[Tensor, "objects 4"], exclusive: bool
    ) -> Float[Tensor, "queries objects"]:
        with torch.no_grad():
            if exclusive:
                of_class = -logits.softmax(-1)[:, kinds]
            else:
                there = _focal(logits, torch.ones_like(logits)) - _focal(logits, torch.zeros_like(logits))
                of_class = there[:, kinds]
            distance = torch.cdist(boxes, targets, p=1)
            return of_class + 5 * distance - 2 * giou(boxes[:, None], targets[None])

    def _classes(
        self, logits: Float[Tensor, "labelled queries columns"], classes: Int[Tensor, "labelled queries"], exclusive: bool
    ) -> Float[Tensor, ""]:
        """classes: of each guess that of its object; -1: nothing."""
        if exclusive:
            weights = torch.where(classes < 0, self.nothing, 1.0).to(logits.dtype)
            targets = torch.where(classes < 0, logits.shape[-1] - 1, classes)
            each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            return (weights.flatten() * each).sum()
        targets = (torch.arange(logits.shape[-1], device=logits.device) == classes[..., None]).to(logits.dtype)
        return _focal(logits, targets).sum()


def _focal(logits: Float[Tensor, "*some classes"], targets: Float[Tensor, "*some classes"]) -> Float[Tensor, "*some classes"]:
    probability = logits.sigmoid()
    wrong = probability * (1 - targets) + (1 - probability) * targets
    share = _ALPHA * targets + (1 - _ALPHA) * (1 - targets)
    return share * wrong**_GAMMA * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
