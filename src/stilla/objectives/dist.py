"""Correlation with the teacher's probabilities, over the classes of a row and over the rows of a step (Huang et al. 2022)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._weights import softening, some, weighed
from stilla.objectives.base import LayerMap, StepObjective
from stilla.recipe import Scheduled
from stilla.recipe.schedule import schedule
from stilla.signals import Dims, Form

_SAME = 1e-12
"""Share of a mean square that a variance at least has, if the numbers differ by more than float32 rounds them."""
_EVEN = 1e-12
"""Added to the square of what differs from even odds, so that a row of equal logits has a gradient."""


class DIST(StepObjective):
    """How far the student's probabilities are from being a linear function of the teacher's.

    With p = softmax(teacher / T), q = softmax(student / T) of all rows of an optimiser step, and r Pearson's correlation:

        T² (beta mean over rows (1 - r(q_row, p_row)) + gamma mean over classes (1 - r(q_class, p_class)))

    The first compares the classes of a row, the second what the rows of a step have of each class (Huang et al. 2022,
    arXiv:2205.10536; T² and defaults as in the authors' code). A class that hardly differs between the rows
    correlates with nothing: distance 1, no gradient. What a step is cut into changes nothing; the size of a step does. Needs
    no labels, three classes at least, and all of a teacher's logits.
    """

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, temperature: Scheduled = 1.0) -> None:
        super().__init__()
        weighed(beta=beta, gamma=gamma)
        some(beta=beta, gamma=gamma)
        self.beta, self.gamma = beta, gamma
        self.temperature = schedule(temperature)
        softening(self.temperature)

    @property
    def instead(self) -> str:
        return "use `logits`"

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(self.temperature.values())

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 3, f"`dist` correlates the classes of a row, and a row of these models has "
                           f"{student.classes}: any two numbers correlate fully. It takes three or more. Use `logits`")

    def unplaced(self, *, places: bool) -> list[str]:
        if not places:
            return []
        return ["compares what the rows of a step have of each class, and here a class is a place in one text, which has "
                "nothing to do with the same place in another. Use `logits`"]

    def sums(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " sums"]:
        """Of 1 - r and of 1 over the rows; then of q, p, q², p² and q p of each class. In float64: variances are
        differences of them."""
        temperature = self.temperature(progress)
        exact = torch.float32 if logits.device.type == "mps" else torch.float64  # which has no other
        q, p = (torch.softmax(one.to(exact) / temperature, -1) for one in (logits, self.given(teacher, logits)))
        own = torch.stack([(1 - _correlation(q, p)).sum(), q.new_tensor(float(len(q)))])
        return torch.cat([own, *(one.sum(0) for one in (q, p, q * q, p * p, q * p))])

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        rows = sums[1]
        q, p, q_q, p_p, q_p = sums[2:].view(5, -1) / rows
        variances = q_q - q * q, p_p - p * p
        differ = (variances[0] > _SAME * q_q) & (variances[1] > _SAME * p_p)
        size = torch.where(differ, variances[0] * variances[1], 1).sqrt()
        between = torch.where(differ, q_p - q * p, 0) / size
        return self.temperature(progress) ** 2 * (self.beta * sums[0] / rows + self.gamma * (1 - between.mean()))


def _correlation(q: Float[Tensor, "rows classes"], p: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Over the classes, whose probabilities' mean is 1 / classes."""
    q, p = (one - 1 / one.shape[-1] for one in (q, p))
    return (q * p).sum(-1) / ((q.square().sum(-1) + _EVEN) * (p.square().sum(-1) + _EVEN)).sqrt()
