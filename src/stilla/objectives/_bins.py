"""Distributions over bins along a line, at other places in two models: brought to the same places."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.objectives._matching import corners

_OUTWARD = (-1.0, -1.0, 1.0, 1.0)
"""Of left, top, right and bottom: where along its axis outside lies."""
_LEAST = 1e-6
"""Of a reference box's side, in shares of the picture: far below a pixel."""


def seen_from(
    bins: Float[Tensor, " theirs"], theirs: Float[Tensor, "pairs 4"], ours: Float[Tensor, "pairs 4"]
) -> Float[Tensor, "pairs 4 theirs"]:
    """Where bins around one reference box lie around another: so many of its sides outside of its left, top, right and bottom
    edge. Both boxes as centre and size; to the bit the bins themselves where both are the same."""
    out = bins.new_tensor(_OUTWARD)
    side = ours[:, 2:].clamp_min(_LEAST).repeat(1, 2)
    apart = out * (corners(theirs) - corners(ours)) / side
    return apart[..., None] + bins * (theirs[:, 2:].clamp_min(_LEAST).repeat(1, 2) / side)[..., None]


def carried(
    probability: Float[Tensor, "*some theirs"], places: Float[Tensor, "*some theirs"], bins: Float[Tensor, " ours"]
) -> Float[Tensor, "*some ours"]:
    """The same distribution over other bins, which rise: what lies between two of them is divided so that its mean stays,
    what lies beyond the last one is put there (as Bellemare et al. 2017, arXiv:1707.06887, bring returns to their atoms)."""
    places = places.clamp(bins[0], bins[-1])
    right = torch.searchsorted(bins, places).clamp(1, len(bins) - 1)
    low, high = bins[right - 1], bins[right]
    share = (places - low) / (high - low)
    empty = probability.new_zeros((*probability.shape[:-1], len(bins)))
    return empty.scatter_add(-1, right, probability * share).scatter_add(-1, right - 1, probability * (1 - share))
