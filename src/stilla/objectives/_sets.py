"""Sets of things that are in pictures: who of a model's guesses answers to what, and how far they are from it, whatever their
shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives._matching import pairs
from stilla.objectives._shapes import Shape
from stilla.objectives._weights import softening
from stilla.objectives.base import StepFeatureObjective, TargetObjective
from stilla.signals import Signals
from stilla.signals.guesses import Guesses

_ALPHA, _GAMMA = 0.25, 2.0
"""Of the focal loss, as every detector of the family has them."""
_NO_OBJECT = -100

Partners = tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]
"""Places of a student's guesses in one picture, and of those of its teacher's that answer to them."""


class SetTarget(TargetObjective):
    """Against what the data say is there: base of `objects` and `segments`, which say the equations."""

    def __init__(self, shape: Shape, *, classes: float, nothing: float) -> None:
        super().__init__()
        self.shape, self.classes, self.nothing = shape, classes, nothing

    def total(self, student: Signals, progress: float) -> Float[Tensor, ""]:
        found, labels = self.shape.found(student), student.labels
        if found is None or labels is None:
            lacking = self.shape.named if found is None else "labels"
            raise CompatibilityError(f"`{type(self).__name__.lower()}` needs pictures and what is in them, and this batch "
                                     f"has no {lacking}; leave the objective out")
        known = (~labels[:, :1, 0].isnan()).nonzero()[:, 0]
        sums = [self._of_set(one, labels, known) for one in (found, *found.earlier)]
        return torch.stack(sums).sum()

    def _of_set(
        self, found: Guesses, labels: Float[Tensor, "batch most numbers"], known: Int[Tensor, " labelled"]
    ) -> Float[Tensor, ""]:
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        logits, shapes = found.logits.to(exact)[known], self.shape.said(found).to(exact)[known]
        labels = labels.to(logits.device, exact)[known]
        chosen, targets, classes = [], [], torch.full(logits.shape[:2], -1, dtype=torch.int64, device=logits.device)
        for place, objects in enumerate(labels):
            objects = objects[objects[:, 0] != _NO_OBJECT]
            kinds = objects[:, 0].long()
            with torch.no_grad():
                cost = self.shape.classes * _of_classes(logits[place], kinds, found.exclusive)
                cost = cost + self.shape.costs(shapes[place], objects[:, 1:])
            ours, theirs = pairs(cost)
            classes[place, ours] = kinds[theirs]
            chosen.append(shapes[place, ours])
            targets.append(objects[theirs, 1:])
        said = self._classes(logits, classes, found.exclusive)
        if not chosen:
            return self.classes * said + 0 * shapes.sum()
        return self.classes * said + self.shape.losses(torch.cat(chosen), torch.cat(targets)).sum()

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


class SetTeacher(StepFeatureObjective):
    """Against what a teacher finds: base of `queries` and `masks`, which say the equations."""

    def __init__(self, shape: Shape, *, classes: float, nothing: float, temperature: float) -> None:
        super().__init__()
        softening(temperature)
        self.shape, self.classes, self.nothing, self.temperature = shape, classes, nothing, temperature

    @property
    def _named(self) -> str:
        return f"`{type(self).__name__.lower()}`"

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        found, told = self.shape.found(student), self.shape.found(teacher)
        if found is None or told is None:
            raise CompatibilityError(f"{self._named} needs what both models find in pictures; it is for task: "
                                     f"{self.shape.task}")
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        target, shapes = (one.to(found.logits.device, exact) for one in (told.independent(), self.shape.told(told)))
        losses, sure = [], shapes.new_tensor(float(len(shapes)))
        for one in (found, *found.earlier):
            said, ours = one.independent().to(exact), self.shape.said(one).to(exact)
            if said.shape[-1] != target.shape[-1]:
                raise CompatibilityError(f"{self._named}: the student has {said.shape[-1]} classes, the teacher "
                                         f"{target.shape[-1]}; expected the same")
            losses += [self._of_picture(*of_both)
                       for of_both in zip(said, ours, target, shapes, partners(self.shape, one, told))]
        sure = sure + target.sigmoid().amax(-1).sum()
        return torch.stack([torch.stack(losses).sum() if losses else sure.new_zeros(()), sure])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        return sums[0] / sums[1].clamp_min(1)

    def _of_picture(
        self, said: Float[Tensor, "ours classes"], ours: Float[Tensor, "ours numbers"],
        target: Float[Tensor, "theirs classes"], theirs: Float[Tensor, "theirs numbers"], paired: Partners
    ) -> Float[Tensor, ""]:
        sure = target.sigmoid().amax(-1)
        mine, yours = paired
        weight = said.new_zeros(len(said)).index_put((mine,), sure[yours])
        # log 0, as a number that has a gradient: what answers to nothing
        goal = torch.full_like(said, torch.finfo(said.dtype).min / 4).index_put((mine,), target[yours])
        apart = self.temperature**2 * _bernoulli_kl(goal / self.temperature, said / self.temperature).sum(-1)
        far = self.shape.losses(ours[mine], theirs[yours])
        return self.classes * ((weight + self.nothing * (1 - weight)) * apart).sum() + (sure[yours] * far).sum()


@torch.no_grad()
def partners(shape: Shape, found: Guesses, told: Guesses) -> list[Partners]:
    """Which of a student's guesses answer to which of its teacher's, of each picture: the cheapest pairs, weighted by how
    sure the teacher is; of a teacher with more guesses those that it is surest of.

    Found once, for all terms that compare the same guesses: what a pair costs is the kind of shape's, whatever a term weighs.
    """
    key = (type(shape), id(told))
    if key not in found.partners:
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        of_all = (found.independent(), shape.said(found), told.independent(), shape.told(told))
        each = zip(*(one.to(found.logits.device, exact) for one in of_all))
        found.partners[key] = told, [_answering(shape, *of_both) for of_both in each]  # whose id stays its own
    paired: list[Partners] = found.partners[key][1]
    return paired


def _answering(
    shape: Shape, said: Float[Tensor, "ours classes"], ours: Float[Tensor, "ours numbers"],
    target: Float[Tensor, "theirs classes"], theirs: Float[Tensor, "theirs numbers"]
) -> Partners:
    sure = target.sigmoid().amax(-1)
    surest = sure.argsort(descending=True, stable=True)[: len(said)]
    apart = torch.cdist(said.sigmoid(), target[surest].sigmoid(), p=1)
    mine, yours = pairs((shape.classes * apart + shape.costs(ours, theirs[surest])) * sure[surest])
    return mine, surest[yours]


def _of_classes(
    logits: Float[Tensor, "queries columns"], kinds: Int[Tensor, " objects"], exclusive: bool
) -> Float[Tensor, "queries objects"]:
    if exclusive:
        return -logits.softmax(-1)[:, kinds]
    there = _focal(logits, torch.ones_like(logits)) - _focal(logits, torch.zeros_like(logits))
    return there[:, kinds]


def _focal(logits: Float[Tensor, "*some classes"], targets: Float[Tensor, "*some classes"]) -> Float[Tensor, "*some classes"]:
    probability = logits.sigmoid()
    wrong = probability * (1 - targets) + (1 - probability) * targets
    share = _ALPHA * targets + (1 - _ALPHA) * (1 - targets)
    return share * wrong**_GAMMA * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _bernoulli_kl(target: Float[Tensor, "*some"], said: Float[Tensor, "*some"]) -> Float[Tensor, "*some"]:
    """KL of sigmoid(target) from sigmoid(said) in nats."""
    p = target.sigmoid()
    there = torch.where(p > 0, p * (F.logsigmoid(target) - F.logsigmoid(said)), 0)
    return there + (1 - p) * (F.logsigmoid(-target) - F.logsigmoid(-said))
