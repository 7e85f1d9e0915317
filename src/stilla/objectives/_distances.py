"""How far vectors are from each other."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Distance = Literal["mse", "relative_mse", "cosine"]


def distance(
    state: Float[Tensor, "*places width"], target: Float[Tensor, "*places width"], kind: Distance
) -> Float[Tensor, "*places"]:
    """|s - t|² / width, |s - t|² / |t|², or 1 - cos(s, t), of every place."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(state, target, dim=-1)
    if kind == "mse":
        return (state - target).square().mean(-1)
    # a state of size zero (an all-zero padding position) must not divide by zero
    size = target.square().sum(-1).clamp_min(torch.finfo(target.dtype).tiny)
    return (state - target).square().sum(-1) / size


def projected(state: Float[Tensor, "*places narrow"], weight: Float[Tensor, "wide narrow"]) -> Float[Tensor, "*places wide"]:
    """W s, in at least float32: one of both may be kept in bfloat16."""
    exact = torch.promote_types(state.dtype, torch.float32)
    return F.linear(state.to(exact), weight.to(exact))
