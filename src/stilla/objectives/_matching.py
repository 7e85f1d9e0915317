"""Boxes and pairs of them: overlap, distance, and who answers to whom (the Hungarian method)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LARGE = 1e9
"""In the place of what is no number: pairs have to be found all the same, and the loss says that it is none."""


def corners(boxes: Float[Tensor, "*some 4"]) -> Float[Tensor, "*some 4"]:
    """Centre and size -> left, top, right, bottom."""
    x, y, width, height = boxes.unbind(-1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)


def giou(one: Float[Tensor, "*#some 4"], other: Float[Tensor, "*#some 4"]) -> Float[Tensor, "*some"]:
    """Generalised IoU of pairs of boxes (centre and size), from -1 to 1: IoU - |hull without the union| / |hull| (Rezatofighi
    et al. 2019, arXiv:1902.09630). Broadcasts."""
    a, b = torch.broadcast_tensors(corners(one), corners(other))
    least = torch.finfo(a.dtype).tiny
    shared = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    return shared / union.clamp_min(least) - (hull - union) / hull.clamp_min(least)


def _area(low: Float[Tensor, "*some 2"], high: Float[Tensor, "*some 2"]) -> Float[Tensor, "*some"]:
    return (high - low).clamp_min(0).prod(-1)


def pairs(cost: Float[Tensor, "ours theirs"]) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """The cheapest pairs, each row and column in one at most; as many as there are of the fewer."""
    from scipy.optimize import linear_sum_assignment  # a third of a second to import

    found = linear_sum_assignment(torch.nan_to_num(cost.detach(), _LARGE, _LARGE, -_LARGE).double().cpu().numpy())
    ours, theirs = (torch.from_numpy(one).to(cost.device) for one in found)
    return ours, theirs
