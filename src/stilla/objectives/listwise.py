"""The order of the teacher's favourites: how likely the student is to name them one after the other (Xia et al. 2008)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives.base import LayerMap, RowObjective
from stilla.signals import Dense, Dims, Form, TopK

_MOST = 10_000


class Listwise(RowObjective):
    """The teacher's `top` likeliest classes, in its order, as the student would draw them one by one, none put back.

    With π_1, π_2, ... these classes, the best first, s the student's logits, k = `top`, per row:

        -(1/k) Σ_{i ≤ k} (s_{π_i} - log Σ_{j not in π_1 ... π_{i-1}} exp s_j)

    the negative log-likelihood of that beginning under Plackett and Luce's model, by place (ListMLE, Xia et al. 2008,
    doi:10.1145/1390156.1390306; for recommenders with a teacher Kang et al. 2020, arXiv:2012.04357, who draw some of the
    other items, all of which stand in the sum here). Only the teacher's order counts, not how sure it is, and nothing that is
    behind its favourites. Not zero at a perfect match. Of a teacher's stored likeliest classes (`TopK`) at least `top` are
    needed.
    """

    def __init__(self, *, top: int = 10) -> None:
        super().__init__()
        if not 1 <= top <= _MOST:
            raise RecipeError(f"top: got {top}; expected a number from 1 to {_MOST:,}")
        self.top = top

    @property
    def accepts(self) -> tuple[type, ...]:
        return (Dense, TopK)

    @property
    def likeliest(self) -> int:
        return self.top

    @property
    def instead(self) -> str:
        return "`cache: {form: top_k}`"

    def unplaced(self, *, places: bool) -> list[str]:
        return ["puts a row's classes in order, and here they are places in an example, of which some are none. Use "
                "`logits`"] if places else []

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        return self.unlike(student, teacher, 3, f"`listwise` puts a row's classes in order, and a row of these models has "
                           f"{student.classes}; it takes three or more. Use `logits`")

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        best = self._best(teacher, logits)
        chosen = logits.gather(-1, best)
        # nearly nothing and not nothing: where all classes are among the best, none is left
        nothing = torch.finfo(logits.dtype).min / 4
        others = logits.scatter(-1, best, nothing).logsumexp(-1, keepdim=True)
        # from the last place to the first: what is left to be drawn there
        left = torch.cat([others, chosen.flip(-1)], -1).logcumsumexp(-1)[:, 1:].flip(-1)
        return (left - chosen).mean(-1)

    def _best(self, teacher: Form | None, logits: Tensor) -> Tensor:
        """(rows, k): the teacher's likeliest, the best first."""
        if not isinstance(teacher, TopK):
            return self.given(teacher, logits).topk(min(self.top, logits.shape[-1]), -1).indices
        stored = teacher.ids.shape[-1]
        if stored < min(self.top, logits.shape[-1]):
            raise CompatibilityError(f"`listwise` compares the {self.top} likeliest classes, and {stored} were stored; use "
                                     f"`top: {stored}`, or store more (cache.k)")
        places = teacher.log_probs.topk(min(self.top, logits.shape[-1]), -1).indices
        return teacher.ids.gather(-1, places)
