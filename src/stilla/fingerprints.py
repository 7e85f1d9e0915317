"""Hashes of what a stage depends on: a model's weights and configuration."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def of_model(model: nn.Module) -> str:
    """A hash of every weight and buffer, by name; equal for equal models on any machine."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
