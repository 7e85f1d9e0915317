"""Hashes of what a stage depends on: a model's weights, and how its inputs are made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase


def of_model(model: nn.Module) -> str:
    """A hash of every weight and buffer, by name; equal for equal models on any machine."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_processor(processor: Any) -> str:
    """A hash of how a tokenizer or image processor makes inputs; not of where it was loaded from."""
    if isinstance(processor, PreTrainedTokenizerBase) and processor.is_fast:
        rules = json.loads(processor.backend_tokenizer.to_str())
        said: Any = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    elif isinstance(processor, PreTrainedTokenizerBase):
        said = [type(processor).__name__, processor.get_vocab()]
    else:
        said = {name: value for name, value in processor.to_dict().items() if not name.startswith("_")}
    return hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
