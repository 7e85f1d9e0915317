"""Which parts of an example the teacher's answer rests on (Simonyan et al. 2014, arXiv:1312.6034; gradient times input)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import FeatureObjective
from stilla.signals import Dims, Signals


class Saliency(FeatureObjective):
    """How far what the student's answer rests on is from what the teacher's does: 1 - cos of their attributions.

    An attribution is gradient times input of the teacher's answer (the logit of its class, the number, the logits of all
    labels or tags that it gives, of a start and an end), summed over the numbers of a token, or over the channels of a pixel.
    Only its direction is compared, so that neither model's scale counts; where the teacher's is zero everywhere nothing is
    learnt. A forward and two backwards more of the student; a backward more of the teacher.
    """

    count = "examples"
    needs_inputs: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()

    def unmade(self, student: Dims) -> list[str]:
        return [] if student.classes else ["explains an answer of logits, and these are none; leave it out"]

    def unseen(self, *, vocabulary: bool) -> list[str]:
        return ["explains the answer to a whole example, and here every token is one; leave it out"] if vocabulary else []

    def unpaired(self, *, pairs: bool) -> list[str]:
        return ["explains an answer of logits, and pairs have none; leave it out"] if pairs else []

    def misfits(self, *, aligned: bool, packed: bool, framed: bool = True) -> list[str]:
        if aligned and framed:
            return []
        return ["compares position by position, but teacher and student cut the examples differently (two tokenizers, or two "
                "image sizes). Give the student the teacher's, or leave it out"]

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        ours, theirs = student.saliency, teacher.saliency
        if ours is None or theirs is None:
            raise CompatibilityError("`saliency` needs a teacher that is asked anew (cache: none): its gradients are not "
                                     "stored")
        if ours.shape != theirs.shape:
            raise CompatibilityError(f"`saliency` compares position by position, and got {tuple(ours.shape)} and "
                                     f"{tuple(theirs.shape)}: teacher and student cut the examples differently")
        exact = torch.promote_types(ours.dtype, torch.float32)
        told = theirs.to(exact)
        distances = 1 - F.cosine_similarity(ours.to(exact), told, dim=1, eps=torch.finfo(exact).tiny)
        return torch.where(told.any(1), distances, 0).sum()
