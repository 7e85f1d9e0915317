"""The teacher's distribution over the classes of every row (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives.base import LayerMap, RowObjective
from stilla.recipe import Scheduled
from stilla.schedule import schedule
from stilla.signals import Dense, Dims, Form

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "tvd", "mse"]


class Logits(RowObjective):
    """How far the student's distribution is from the teacher's, both softened by a temperature T.

    With p = softmax(teacher / T), q = softmax(student / T), per row:

    - `forward_kl`: T² Σ p (log p - log q). Covers all that the teacher thinks possible.
    - `reverse_kl`: T² Σ q (log q - log p). Seeks the teacher's favourites.
    - `jsd`: T² (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2. Symmetric, at most T² log 2.
    - `tvd`: T Σ |p - q| / 2. Bounded gradient.
    - `mse`: the mean over classes of (teacher - student)² of the logits themselves; takes no temperature.

    T² (T for `tvd`, which is of first order in the difference) keeps the gradient's scale independent of T, so
    that weights mean the same at every temperature. All are zero at a perfect match. Several labels per example
    come as rows of two classes: per-label Bernoulli distributions.
    """

    def __init__(self, *, divergence: Divergence = "forward_kl", temperature: Scheduled | None = None) -> None:
        super().__init__()
        if divergence == "mse" and temperature is not None:
            raise RecipeError("temperature: `mse` compares the logits themselves and takes none; leave it out")
        self.divergence = divergence
        self.temperature = schedule(2.0 if temperature is None else temperature)
        if min(self.temperature.values()) <= 0:
            raise RecipeError(f"temperature: got {self.temperature.plain()}; expected numbers above 0")

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        if teacher is None:
            return ["`logits` needs a teacher"]
        if student.classes != teacher.classes:
            return [f"the student has {student.classes} outputs, the teacher {teacher.classes}: `logits` compares class "
                    "by class. Give both the same labels in the same order"]
        if student.classes < 2 and self.divergence != "mse":
            return [f"`logits` with {self.divergence} needs at least two classes, and these models have one output (a "
                    "number): softmax of one output is always 1, so it would teach nothing. Use `divergence: mse`, "
                    "which compares the numbers, or the objectives `labels` and `hidden`"]
        return []

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        if not isinstance(teacher, Dense):
            raise CompatibilityError("`logits` needs a teacher's logits, and this batch has none")
        target = teacher.logits.to(logits.dtype)
        if self.divergence == "mse":
            return (target - logits).square().mean(-1)
        temperature = self.temperature(progress)
        log_p = torch.log_softmax(target / temperature, -1)
        log_q = torch.log_softmax(logits / temperature, -1)
        return temperature ** _ORDER[self.divergence] * _DIVERGENCES[self.divergence](log_p, log_q)


def forward_kl(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """KL(p || q) in nats; classes that p excludes contribute nothing."""
    return _times(log_p.exp(), log_p - log_q).sum(-1)


def jsd(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Jensen-Shannon divergence in nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (forward_kl(log_p, log_m) + forward_kl(log_q, log_m)) / 2


def tvd(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Total variation distance, at most 1."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def _times(probability: Tensor, log_ratio: Tensor) -> Tensor:
    # 0 · log 0 = 0, also in the gradient: a class at -inf on both sides would give nan otherwise
    return torch.where(probability > 0, probability * torch.where(probability > 0, log_ratio, 0), 0)


_DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": lambda log_p, log_q: forward_kl(log_q, log_p),
    "jsd": jsd,
    "tvd": tvd,
}
_ORDER = {"forward_kl": 2, "reverse_kl": 2, "jsd": 2, "tvd": 1}
