"""A decoder that makes every step by one file, which takes keys and values of length 0 at first."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from stilla.export.keys import PAST, TOKENS, Axes, cache, export, flat, past_names


class _Step(nn.Module):
    """(what it reads, attention_mask[, position_ids], keys and values of every layer) -> (logits, keys and values)."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, values))
        out = self.model(**inputs, past_key_values=cache(values[len(self.names) :]), use_cache=True)
        return (out.logits, *flat(out.past_key_values))


def takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def write_steps(model: Any, name: str, read: Tensor, path: Path) -> Path:
    """`name`: of what it reads, `input_ids` or `inputs_embeds`; `read`: some of it, (batch, tokens, ...)."""
    read = read if read.shape[1] > 2 else torch.cat([read, read], dim=1)
    with torch.no_grad():
        past = flat(model(**{name: read}, use_cache=True, past_key_values=DynamicCache()).past_key_values)
    rows, length = read.shape[:2]
    given = {name: read[:, :2], "attention_mask": torch.ones(rows, length + 2, dtype=torch.int64)}
    if takes_positions(model):
        given["position_ids"] = torch.arange(length, length + 2).expand(rows, 2)
    names = past_names(len(past))
    axes: dict[str, Axes] = {**dict.fromkeys(names, PAST), **dict.fromkeys(given, TOKENS),
                             "attention_mask": {0: "batch", 1: "past_and_tokens"}}
    outputs = ["logits", *(one.replace("past_key_values", "present") for one in names)]
    export(_Step(model, tuple(given)).eval(), {**given, **dict(zip(names, past))}, axes, outputs, path, model)
    return path
