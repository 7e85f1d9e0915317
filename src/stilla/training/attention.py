"""Attention in float32 while a processor trains in bfloat16, where torch's kernel for that is slow in the backward.

Forward and backward of 12 heads, 32 wide, of 32 texts, one thread of a processor that multiplies bfloat16 (torch 2.13), in
milliseconds: with 24 tokens 24 in bfloat16 and 5 in float32, with 128 tokens 128 and 57, with 512 tokens 781 and 750.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

KIND = "sdpa"


@contextmanager
def attention_in_float32(device: torch.device) -> Iterator[None]:
    """Inside, every model's `sdpa` attention that needs a gradient is computed so, on a processor; else nothing changes.

    A forward and its backward belong within the same one: recomputed activations must come out alike. What a person
    put in the place of `sdpa` stays there.
    """
    if device.type != "cpu" or ALL_ATTENTION_FUNCTIONS[KIND] is not sdpa_attention_forward:
        yield
        return
    ALL_ATTENTION_FUNCTIONS[KIND] = _in_float32
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[KIND] = sdpa_attention_forward


def _in_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    if query.dtype != torch.bfloat16 or not (query.requires_grad or key.requires_grad or value.requires_grad):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    options = {name: _wide(one) for name, one in options.items()}
    with torch.autocast(query.device.type, enabled=False):
        said, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), _wide(attention_mask), **options)
    return said.to(query.dtype), None


def _wide(given: Any) -> Any:
    """A mask or bias that is added has to be of the precision of what it is added to."""
    return given.float() if isinstance(given, Tensor) and given.is_floating_point() else given
