"""Where a teacher sees the edges of boxes, as distributions (Localization Distillation: Zheng et al. 2022, arXiv:2102.12252;
D-FINE: Peng et al. 2024, arXiv:2410.13842)."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, all_of
from stilla.objectives._bins import carried, seen_from
from stilla.objectives._sets import partners
from stilla.objectives._shapes import BoxShape
from stilla.objectives._weights import softening
from stilla.objectives.base import LayerMap, StepFeatureObjective
from stilla.signals import Detections, Dims, Signals

_SHAPE = BoxShape(5.0, 2.0)
"""What pairs cost, as in `queries`."""


class Edges(StepFeatureObjective):
    """How far the distributions of a student's edges are from those of its teacher's, of guesses that are paired as `queries`
    pairs them:

        Σ w · T² · mean over left, top, right, bottom of KL(p^(1/T) || q^(1/T)),

    w how sure the teacher is of its guess, both softened by T and made to add up to one. p is the teacher's distribution
    over the student's bins: those of each guess lie around a reference box of its own, and may be other ones, so that the
    teacher's are looked at from the student's box, and what lies between two bins is divided among them so that its mean
    stays. Where boxes and bins are the same, so is p. Divided by Σ w over all that the teacher finds and 1 for every picture,
    of the whole step. Needs no labels. The same of a student's earlier layers that have distributions.
    """

    needs_edges: ClassVar[bool] = True
    count = "objects"

    def __init__(self, *, temperature: float = 5.0) -> None:
        super().__init__()
        softening(temperature)
        self.temperature = temperature
        self.bins: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
        """The student's and the teacher's."""

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        lacking = [name for name, dims in (("student", student), ("teacher", teacher)) if dims is None or not dims.bins]
        if not lacking:
            return []
        return [f"compares distributions of where the edges of boxes lie, and {all_of([f'the {one}' for one in lacking])} "
                f"{'has' if len(lacking) == 1 else 'have'} none: D-FINE and DEIMv2 (task: object-detection) do, other "
                "detectors say one place of each edge. Use `queries`, which compares boxes, or two such models"]

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        self.bins = (student.bins, () if teacher is None else teacher.bins)

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        found, told = student.detections, teacher.detections
        if found is None or told is None or found.edges is None or told.edges is None:
            whose = "student" if found is None or found.edges is None else "teacher"
            raise CompatibilityError(f"`edges` needs distributions of edges, and what the {whose} said of this batch has "
                                     "none; of a cache, capture it with this recipe into another cache.path")
        exact = torch.promote_types(found.logits.dtype, torch.float32)
        target = told.independent().detach().to(found.logits.device, exact)
        layers = [one for one in (found, *found.earlier) if one.edges is not None]
        losses = [self._of_layer(one, told, target) for one in layers]
        sure = target.sigmoid().amax(-1).sum() + len(target)
        return torch.stack([torch.stack(losses).sum(), sure])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        return sums[0] / sums[1].clamp_min(1)

    def _of_layer(
        self, found: Detections, told: Detections, target: Float[Tensor, "batch theirs classes"]
    ) -> Float[Tensor, ""]:
        assert found.edges is not None
        assert told.edges is not None
        logits, reference = found.edges.logits.to(target.dtype), found.edges.reference.detach().to(target.dtype)
        places = partners(_SHAPE, found, told)
        if not places:
            return 0 * logits.sum()
        picture = torch.cat([torch.full_like(mine, number) for number, (mine, _) in enumerate(places)])
        mine, theirs = (torch.cat(one) for one in zip(*places))
        with torch.no_grad():
            bins = [target.new_tensor(one) for one in self.bins]
            edges, place = (one.to(target)[picture, theirs] for one in (told.edges.logits, told.edges.reference))
            p = carried(edges.softmax(-1), seen_from(bins[1], place, reference[picture, mine]), bins[0])
            sure = target[picture, theirs].sigmoid().amax(-1)
        return (sure * self._apart(p, logits[picture, mine]).mean(-1)).sum()

    def _apart(self, p: Float[Tensor, "pairs 4 bins"], logits: Float[Tensor, "pairs 4 bins"]) -> Float[Tensor, "pairs 4"]:
        softened = (p.log() / self.temperature).log_softmax(-1)
        said = (logits / self.temperature).log_softmax(-1)
        there = p > 0  # 0 · log 0 = 0
        apart = torch.where(there, softened.exp() * (softened.masked_fill(~there, 0) - said), 0)
        return self.temperature**2 * apart.sum(-1)
