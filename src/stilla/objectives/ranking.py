"""Scores of a query's candidates, compared with each other: lists (ListNet, Cao et al. 2007, doi:10.1145/1273496.1273513),
margins (Hofstätter et al. 2020, arXiv:2010.02666) and orders (RankNet: Burges et al. 2005, doi:10.1145/1102351.1102363).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives._weights import softening
from stilla.objectives.base import FeatureObjective, LayerMap
from stilla.signals import Dense, Dims, Signals


class Ranking(FeatureObjective):
    """How a query's candidates stand to each other, mean over queries of two candidates or more. With s and t their scores:

    - `kl`: T² Σ_i p_i (log p_i - log q_i), p = softmax(t / T), q = softmax(s / T) over the candidates.
    - `margin_mse`: the mean over all pairs i < j of ((s_i - s_j) - (t_i - t_j))²; of two candidates, MarginMSE.
    - `ranknet`: the mean over all pairs with t_i > t_j of log(1 + exp(s_j - s_i)). Only the teacher's order counts.

    T is `temperature` (1 unless given), for `kl` alone. What is added to all of a query's scores changes none of them, so
    that models whose scores lie elsewhere can be compared; the scores themselves are learnt by `logits` with
    `divergence: mse`. A query stands in one piece, so how a step is cut changes nothing.
    """

    count = "queries"

    def __init__(
        self, *, compare: Literal["kl", "margin_mse", "ranknet"] = "kl", temperature: float | None = None
    ) -> None:
        super().__init__()
        if temperature is not None and compare != "kl":
            raise RecipeError(f"temperature: `{compare}` softens nothing and takes none; leave it out, or use `compare: kl`")
        self.compare = compare
        self.temperature = 1.0 if temperature is None else temperature
        softening(self.temperature)

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        if teacher is None:
            return ["`ranking` needs a teacher"]
        if (student.classes, teacher.classes) != (1, 1):
            return [f"`ranking` compares one score of every candidate, and these models give {student.classes} (student) and "
                    f"{teacher.classes} (teacher) numbers; it is for task: reranking"]
        return []

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        queries = student.queries
        if queries is None or not isinstance(student.logits, Dense) or not isinstance(teacher.logits, Dense):
            raise CompatibilityError("`ranking` needs a score of every candidate from both models, and which query it "
                                     "belongs to")
        said, told = student.logits.logits, teacher.logits.logits
        exact = torch.promote_types(said.dtype, torch.float32)
        ours, theirs = (_side_by_side(one[:, 0].to(exact), queries) for one in (said, told.to(said.device)))
        there = _side_by_side(torch.ones_like(queries, dtype=torch.bool), queries)
        several = there.sum(1) > 1
        return self._losses(ours[several], theirs[several], there[several]).sum()

    def _losses(
        self, s: Float[Tensor, "queries candidates"], t: Float[Tensor, "queries candidates"],
        there: Bool[Tensor, "queries candidates"],
    ) -> Float[Tensor, " queries"]:
        if self.compare == "kl":
            q, p = (_log_softmax(one / self.temperature, there) for one in (s, t))
            return self.temperature**2 * (torch.where(there, p.exp(), 0) * (p - q)).sum(1)
        if self.compare == "margin_mse":
            number, gap = there.sum(1, keepdim=True), s - t  # Σ_{i<j} (g_i - g_j)² = n Σ (g_i - mean)²
            around = torch.where(there, gap - gap.sum(1, keepdim=True) / number, 0)
            return 2 * around.square().sum(1) / (number.squeeze(1) - 1)
        above = (t[:, :, None] > t[:, None, :]) & there[:, :, None] & there[:, None, :]
        each = torch.where(above, F.softplus(s[:, None, :] - s[:, :, None]), 0)
        return each.sum((1, 2)) / above.sum((1, 2)).clamp_min(1)


def _side_by_side(values: Tensor, queries: Int[Tensor, " rows"]) -> Tensor:
    """(queries, candidates): a query a row, zero behind its last candidate."""
    sizes = torch.bincount(queries)
    places = torch.arange(len(queries), device=queries.device) - (sizes.cumsum(0) - sizes)[queries]
    return values.new_zeros(len(sizes), int(sizes.max())).index_put((queries, places), values)


def _log_softmax(
    scores: Float[Tensor, "queries candidates"], there: Bool[Tensor, "queries candidates"]
) -> Float[Tensor, "queries candidates"]:
    """Over what is there; 0 elsewhere."""
    whole: Tensor = torch.log_softmax(scores.masked_fill(~there, -torch.inf), -1)
    return whole.masked_fill(~there, 0)
