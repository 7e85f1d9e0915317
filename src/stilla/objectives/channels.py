"""Where in a picture each class is: channel-wise distillation (Shu et al. 2021, arXiv:2011.13256)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from stilla.objectives._maps import maps_of
from stilla.objectives._weights import softening
from stilla.objectives.base import FeatureObjective, LayerMap, LogitObjective
from stilla.signals import Dims, Signals


class Channels(LogitObjective, FeatureObjective):
    """How far the student's map of each class is from the teacher's, each a distribution over the places of a picture.

    With φ_c = softmax over all places i of a picture of z_{c,i} / T, mean over pictures:

        T² / C Σ_c Σ_i φᵗ_{c,i} (log φᵗ_{c,i} - log φˢ_{c,i})

    What is added to all of a class's map changes nothing: it says where a class is likelier than elsewhere, and not how
    likely; that is learnt by `logits` or `labels` beside it. T is `temperature` (4 unless given, the authors' value). In
    published measurements it helps convolutional students and hurts a SegFormer (docs/objectives.md).
    """

    count = "pictures"

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        softening(temperature)
        self.temperature = temperature

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 1, "")

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        ours, theirs = (one / self.temperature for one in maps_of(self, student, teacher))
        q, p = (one.log_softmax(1) for one in (ours, theirs))
        return self.temperature**2 * (p.exp() * (p - q)).sum() / ours.shape[2]
