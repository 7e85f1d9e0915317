"""What a linear-chain CRF says of each word by itself: its marginals, as a softmax tagger's logits would say them.

A CRF scores whole sequences, s(y) = Σ_t emission_t(y_t) + Σ_t transition(y_{t-1}, y_t) + start(y_1) + end(y_n), so that its
emissions are not the distribution of a word's tag. Its marginals p(y_t = y | x) are (forward-backward: Rabiner 1989,
doi:10.1109/5.18626). A student that has no transitions learns those (Wang et al. 2021, arXiv:2010.05010, sec. 3).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def log_marginals(
    emissions: Float[Tensor, "batch positions tags"],
    transitions: Float[Tensor, "tags tags"],
    start: Float[Tensor, " tags"],
    end: Float[Tensor, " tags"],
    mask: Bool[Tensor, "batch positions"],
) -> Float[Tensor, "batch positions tags"]:
    """log p(y_t = y | x), which a module gives as its `logits`: their softmax is the marginal itself. 0 where masked.

    transitions: [from, to]. mask: the positions that are a sequence, wherever they lie: transitions lead from one to the next
    of them (the first tokens of words, past the others).
    """
    forward, backward = _forward(emissions, transitions, start, mask), _backward(emissions, transitions, end, mask)
    scores = forward + backward
    return torch.where(mask[..., None], scores - scores.logsumexp(-1, keepdim=True), 0)


def _forward(emissions: Tensor, transitions: Tensor, start: Tensor, mask: Tensor) -> Tensor:
    """log Σ over all that stands before and at a position."""
    found = []
    before = torch.zeros_like(emissions[:, 0])
    begun = torch.zeros_like(mask[:, 0])
    for here, there in zip(emissions.unbind(1), mask.unbind(1)):
        comes = torch.where(begun[:, None], (before[:, :, None] + transitions).logsumexp(1), start) + here
        before = torch.where(there[:, None], comes, before)
        begun = begun | there
        found.append(before)
    return torch.stack(found, 1)


def _backward(emissions: Tensor, transitions: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """log Σ over all that stands behind a position."""
    found = []
    behind = end.expand_as(emissions[:, 0])
    for here, there in zip(reversed(emissions.unbind(1)), reversed(mask.unbind(1))):
        found.append(behind)
        goes_on = (transitions + (here + behind)[:, None, :]).logsumexp(2)
        behind = torch.where(there[:, None], goes_on, behind)
    return torch.stack(found[::-1], 1)
