"""By how much the first candidate is ahead of each of the others (MarginMSE: Hofstätter et al. 2020, arXiv:2010.02666)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from stilla.objectives.base import LayerMap, RowObjective
from stilla.signals import Dims, Form


class Margins(RowObjective):
    """MarginMSE: ((s_0 - s_j) - (t_0 - t_j))², mean over a query's other candidates j.

    s and t are scores of a query's candidates, of which the first is what answers it. A query is a row: what stands beside it
    in a batch changes nothing. What is added to all scores of one model changes nothing either, so that models whose scores
    lie elsewhere can be compared.
    """

    def __init__(self) -> None:
        super().__init__()

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 2, "`margins` compares a query's candidates with each other, and here it has "
                           "one. Give what does not answer it too (a third column in data.text), or use `embedding`; "
                           "where every candidate has a row of its own (task: reranking), use `ranking`")

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        gap = logits - self.given(teacher, logits)
        return (gap[:, :1] - gap[:, 1:]).square().mean(-1)
