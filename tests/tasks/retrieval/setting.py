"""Tiny encoders that give a vector per text, as sentence-transformers folders, and data for them."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(width: int, seed: int = 0) -> Tensor:
    """(width, width), orthonormal."""
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64))[0]
