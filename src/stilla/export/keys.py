"""Keys and values of what a decoder has read: caches as the tensors that go into a graph and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import Dim
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from stilla.errors import ExportError
from stilla.export import graphs

Inputs = Mapping[str, Tensor]
Axes = Mapping[int, str]

TOKENS: Axes = {0: "batch", 1: "tokens"}
PAST: Axes = {0: "batch", 2: "past"}


def cache(tensors: Sequence[Tensor]) -> DynamicCache:
    made = DynamicCache()
    for layer, (keys, values) in enumerate(by_two(tensors)):
        made.update(keys, values, layer)
    return made


def by_two(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(tensors[place], tensors[place + 1]) for place in range(0, len(tensors), 2)]


def both(made: EncoderDecoderCache) -> tuple[Any, Any]:
    return made.self_attention_cache, made.cross_attention_cache


def flat(made: Any) -> list[Tensor]:
    """Keys and values, layer by layer.

    Raises:
        ExportError: a layer keeps something else (a state of constant size).
    """
    found: list[Tensor] = []
    for layer in made.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if not isinstance(keys, Tensor) or not isinstance(values, Tensor):
            raise ExportError(f"onnx: a layer of this model keeps a {type(layer).__name__} of what it has read, not keys and "
                              "values: it cannot be written so that texts can be continued")
        found += [keys, values]
    return found


def past_names(count: int) -> list[str]:
    return [f"past_key_values.{layer}.{kind}" for layer in range(count // 2) for kind in ("key", "value")]


def export(
    module: nn.Module, inputs: Inputs, axes: Mapping[str, Axes], outputs: Sequence[str], path: Path, model: Any
) -> None:
    """A graph of a part of a model, whose axes may have any size as far as they are named."""
    shapes = tuple(dict.fromkeys(axes[name], Dim.DYNAMIC) for name in inputs)
    graphs.trace(module, inputs, shapes, outputs, path, type(model).__name__)
    graphs.clean(path, axes)
