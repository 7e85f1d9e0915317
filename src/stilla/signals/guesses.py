"""What models find in pictures: sets without order, of which most are nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """How far each edge of a guess's box lies outside of the same edge of a box that the guess refers to, as a distribution
    over bins: so many widths of that box (heights, for top and bottom) as `Dims.bins` says of the model, inside below 0.

    logits: of left, top, right, bottom. reference: that box, as centre x, y, width and height in shares of the picture.
    """

    logits: Float[Tensor, "batch queries 4 bins"]
    reference: Float[Tensor, "batch queries 4"]


@dataclass(frozen=True)
class Detections:
    """What a model finds in each picture of a batch: so many guesses (queries), of which most are nothing.

    logits: a column for each class, of which a sigmoid is the probability; or, where the classes are `exclusive`, one more
    for "nothing", under a softmax of all. boxes: centre x, y, width and height, as shares of the picture. earlier: what the
    layers before the last one find, which learn the same; empty of a teacher. edges: distributions of which the boxes are
    the means, where a model has them. partners: a teacher's guesses that answer to these, by teacher: found by the first
    objective that asks (`objectives/_sets.py`), and the same for all others.
    """

    logits: Float[Tensor, "batch queries columns"]
    boxes: Float[Tensor, "batch queries 4"]
    exclusive: bool = False
    earlier: tuple[Detections, ...] = ()
    edges: Edges | None = None
    partners: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def independent(self) -> Float[Tensor, "batch queries classes"]:
        return independent(self.logits) if self.exclusive else self.logits


@dataclass(frozen=True)
class Segments:
    """The same with masks: of each guess, how sure the model is that a place of a grid over the picture is its own.

    masks: of which a sigmoid is the probability. partners: as of `Detections`.
    """

    logits: Float[Tensor, "batch queries columns"]
    masks: Float[Tensor, "batch queries height width"]
    exclusive: bool = True
    earlier: tuple[Segments, ...] = ()
    partners: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def independent(self) -> Float[Tensor, "batch queries classes"]:
        return independent(self.logits) if self.exclusive else self.logits


Guesses = Detections | Segments


def independent(logits: Float[Tensor, "*some columns"]) -> Float[Tensor, "*some classes"]:
    """log p / (1 - p) of each class by itself, of a softmax over the classes and, last, nothing: so that models of both kinds
    can be compared."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = torch.arange(logits.shape[-1], device=logits.device) == logits.argmax(-1, keepdim=True)
    # of the largest the others are summed without it, of each other there is at least the largest: no digit is lost
    beside = logits.masked_fill(largest, -torch.inf).logsumexp(-1, keepdim=True)
    top = logits.amax(-1, keepdim=True)
    shares = (logits - top).exp()
    without = top + (shares.sum(-1, keepdim=True) - shares).clamp_min(0.5).log()
    return (logits - torch.where(largest, beside, without))[..., :-1]
