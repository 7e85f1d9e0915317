"""Where guesses say that something is, boxes or masks: what it costs to pair two of them, and how far apart a pair is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._matching import giou
from stilla.signals import Signals
from stilla.signals.guesses import Detections, Guesses, Segments


class Shape(ABC):
    """One of the kinds below. What is said of a place comes as logits or numbers of the models', what is learnt as numbers of
    the data's, a teacher's among them."""

    named: ClassVar[str]
    """What models find that have it."""
    task: ClassVar[str]
    classes: ClassVar[float]
    """What a class counts in the cost of a pair, beside the shape."""

    @abstractmethod
    def found(self, signals: Signals) -> Guesses | None:
        """The guesses of a model that has this shape."""

    @abstractmethod
    def said(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        """Of guesses that learn."""

    @abstractmethod
    def told(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        """Of guesses that are learnt from."""

    @abstractmethod
    def costs(self, ours: Float[Tensor, "ours numbers"], theirs: Float[Tensor, "theirs numbers"]
              ) -> Float[Tensor, "ours theirs"]:
        """Of every pair, at least 0."""

    @abstractmethod
    def losses(self, ours: Float[Tensor, "pairs numbers"], theirs: Float[Tensor, "pairs numbers"]
               ) -> Float[Tensor, " pairs"]:
        """0 where both are the same."""


class BoxShape(Shape):
    """l1 · |b - t|₁ + giou · (1 - GIoU), b and t as centre and size in shares of the picture; pairs cost 5 · L1 + 2 ·
    (1 - GIoU)."""

    named, task, classes = "detections", "object-detection", 1.0

    def __init__(self, l1: float, giou: float) -> None:
        self.l1, self.giou = l1, giou

    def found(self, signals: Signals) -> Guesses | None:
        return signals.detections

    def said(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        assert isinstance(guesses, Detections)
        return guesses.boxes

    def told(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        return self.said(guesses)

    def costs(self, ours: Float[Tensor, "ours numbers"], theirs: Float[Tensor, "theirs numbers"]
              ) -> Float[Tensor, "ours theirs"]:
        return 5 * torch.cdist(ours, theirs, p=1) + 2 * (1 - giou(ours[:, None], theirs[None]))

    def losses(self, ours: Float[Tensor, "pairs numbers"], theirs: Float[Tensor, "pairs numbers"]
               ) -> Float[Tensor, " pairs"]:
        return self.l1 * (ours - theirs).abs().sum(-1) + self.giou * (1 - giou(ours, theirs))


class MaskShape(Shape):
    """mask · mean over places of KL(t || σ(m)) + dice · (1 - (2 Σ σ(m) t + 1) / (Σ σ(m)² + Σ t² + 1)), t the share of a place
    that is covered, or the teacher's probability; pairs cost the same with 5 and 5.

    With t of 0 and 1 the first is the binary cross-entropy. Dice with squares (Milletari et al. 2016, arXiv:1606.04797) and
    not with sums, as that one would not be 0 where both are the same and neither 0 nor 1.
    """

    named, task, classes = "segments", "image-segmentation", 2.0

    def __init__(self, mask: float, dice: float) -> None:
        self.mask, self.dice = mask, dice

    def found(self, signals: Signals) -> Guesses | None:
        return signals.segments

    def said(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        assert isinstance(guesses, Segments)
        return guesses.masks.flatten(2)

    def told(self, guesses: Guesses) -> Float[Tensor, "batch queries numbers"]:
        return self.said(guesses).sigmoid()

    def costs(self, ours: Float[Tensor, "ours numbers"], theirs: Float[Tensor, "theirs numbers"]
              ) -> Float[Tensor, "ours theirs"]:
        probability = ours.sigmoid()
        crossed = F.softplus(ours).sum(-1)[:, None] - ours @ theirs.T
        apart = (crossed - _entropy(theirs).sum(-1)[None]) / ours.shape[-1]
        squares = probability.square().sum(-1)[:, None] + theirs.square().sum(-1)[None]
        return 5 * apart + 5 * (1 - (2 * probability @ theirs.T + 1) / (squares + 1))

    def losses(self, ours: Float[Tensor, "pairs numbers"], theirs: Float[Tensor, "pairs numbers"]
               ) -> Float[Tensor, " pairs"]:
        probability = ours.sigmoid()
        apart = (F.softplus(ours) - ours * theirs - _entropy(theirs)).mean(-1)
        squares = probability.square().sum(-1) + theirs.square().sum(-1)
        dice = 1 - (2 * (probability * theirs).sum(-1) + 1) / (squares + 1)
        return self.mask * apart + self.dice * dice


def _entropy(probability: Float[Tensor, "*some"]) -> Float[Tensor, "*some"]:
    return -torch.xlogy(probability, probability) - torch.xlogy(1 - probability, 1 - probability)
