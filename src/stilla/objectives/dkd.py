"""The teacher's distribution in two parts: the label against all others, and the others among themselves (Zhao et al.)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives._divergences import expectation, forward_kl
from stilla.objectives._weights import softening, some, weighed
from stilla.objectives.base import Gradient, LayerMap, RowObjective, Softened
from stilla.recipe import Scheduled
from stilla.recipe.schedule import schedule
from stilla.signals import Dims, Form

_NO_LABEL = -100


class DKD(RowObjective):
    """How sure the teacher is of the label, and how it shares the rest among the other classes, each with its own weight.

    With p = softmax(teacher / T), q = softmax(student / T), y the label, and p', q' over the classes without y:

        T² (alpha KL((p_y, 1 - p_y) || (q_y, 1 - q_y)) + beta KL(p' || q'))

    With alpha = 1, and 1 - p_y in beta's place, that is `logits` with forward KL: where a teacher is sure of the label,
    what it knows of the other classes is lost there, and counts here (Zhao et al. 2022, arXiv:2203.08679). The
    defaults are the authors' for CIFAR-100; they took beta from 0.5 to 8 by data set. Rows without a label are zero and are
    not counted. Needs classes as labels, three at least, and all of a teacher's logits.
    """

    count = "labelled"

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, temperature: Scheduled = 4.0) -> None:
        super().__init__()
        weighed(alpha=alpha, beta=beta)
        some(alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta
        self.temperature = schedule(temperature)
        softening(self.temperature)

    @property
    def instead(self) -> str:
        return "use `logits`"

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(self.temperature.values())

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 3, "`dkd` shares what is beside the label among the other classes, and a row of "
                           f"these models has {student.classes}; it takes three or more. Use `logits`")

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        known, label = _labelled(labels)
        temperature = self.temperature(progress)
        ours, theirs = ((one / temperature).scatter(-1, label, -torch.inf) for one in (logits, self.given(teacher, logits)))
        odds_q, odds_p = (one.gather(-1, label).squeeze(-1) / temperature - others.logsumexp(-1)
                          for one, others in ((logits, ours), (self.given(teacher, logits), theirs)))
        rest = forward_kl(torch.log_softmax(theirs, -1), torch.log_softmax(ours, -1))
        losses = temperature**2 * (self.alpha * _binary_kl(odds_p, odds_q) + self.beta * rest)
        return torch.where(known, losses, 0)

    def losses_and_gradients(
        self, student: Softened, teacher: Form | None, labels: Tensor | None, progress: float
    ) -> tuple[Float[Tensor, " rows"], Gradient]:
        known, label = _labelled(labels)
        temperature, ours, theirs = self.temperature(progress), student.logits, self.given(teacher, student.logits)
        (q, log_z_q), (p, log_z_p) = (Softened(one.scatter(-1, label, -torch.inf)).softmax(temperature)
                                      for one in (ours, theirs))
        odds_q, odds_p = (one.gather(-1, label) / temperature - log_z for one, log_z in ((ours, log_z_q), (theirs, log_z_p)))
        # at the label itself p is 0, whatever the logits differ by
        rest = expectation(p, theirs - ours) / temperature - (log_z_p - log_z_q).squeeze(-1)
        losses = temperature**2 * (self.alpha * _binary_kl(odds_p, odds_q).squeeze(-1) + self.beta * rest)
        counted = temperature * known.unsqueeze(-1).to(ours.dtype)
        surer = counted * self.alpha * (odds_q.sigmoid() - odds_p.sigmoid())
        # where the label lost what it had too much, the others get it by their shares
        return torch.where(known, losses, 0), Gradient(
            ((q, self.beta * counted - surer), (p, -self.beta * counted)), label, surer)


def _labelled(labels: Tensor | None) -> tuple[Bool[Tensor, " rows"], Int[Tensor, "rows 1"]]:
    """Which rows have a label, and the class; any where there is none."""
    if labels is None:
        raise CompatibilityError("`dkd` needs labels, and this batch has none; train on labelled data, or use `logits`")
    if labels.is_floating_point():
        raise CompatibilityError("`dkd` needs classes as labels, and these are numbers; use `logits` with `divergence: mse`")
    known = labels != _NO_LABEL
    return known, torch.where(known, labels, 0).unsqueeze(-1)


def _binary_kl(odds_p: Tensor, odds_q: Tensor) -> Tensor:
    """Between an event and none, in nats, of their log-odds: no digits are lost where a probability is near 1."""
    return (odds_p.sigmoid() * (F.logsigmoid(odds_p) - F.logsigmoid(odds_q))
            + (-odds_p).sigmoid() * (F.logsigmoid(-odds_p) - F.logsigmoid(-odds_q)))
