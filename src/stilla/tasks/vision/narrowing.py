"""EoMT's masked attention in a graph: whether masks narrow what queries see, block by block, is decided before it is made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentation

from stilla.tasks.shared.front import fronted

_SHARES = "attn_mask_probs"
DRAWS = ("an EoMT that draws at random which queries see no more than their masks (attn_mask_probs between 0 and 1, as in "
         "the middle of a training) answers otherwise each time. Leave the file out, or set attn_mask_probs to 0 or 1")


def decided_before(model: nn.Module) -> None:
    """Change such models in place, once; nothing of what they answer or save changes."""
    for module in model.modules():
        if isinstance(module, EomtForUniversalSegmentation):
            fronted(module, _Decided)


def draws(model: nn.Module) -> bool:
    """Whether it draws at random which queries see no more than their masks, so that no graph answers as it does."""
    several = [one for one in model.modules() if isinstance(one, EomtForUniversalSegmentation)]
    return any(0 < share < 1 for one in several for share in one.attn_mask_probs.tolist())


class _Decided(nn.Module):
    """In front of EoMT's class. The shares of queries that are narrowed stand among its weights, though nobody learns them; a
    graph cannot ask for a weight's value, and takes what it was when the model was last asked."""

    shares: tuple[float, ...] = ()
    attn_mask_probs: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_exporting():
            self.shares = tuple(self.attn_mask_probs.tolist())
            return super().forward(*args, **kwargs)
        self.__dict__[_SHARES] = self.shares  # found before the weight of that name
        try:
            return super().forward(*args, **kwargs)
        finally:
            del self.__dict__[_SHARES]
