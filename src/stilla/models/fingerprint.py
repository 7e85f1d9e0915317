"""Hashes of what a stage depends on: a model, and how its inputs are made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

SAY_NOTHING = frozenset({
    "architectures", "dtype", "id2label", "label2id", "output_attentions", "output_hidden_states", "problem_type",
    "return_dict", "torch_dtype", "transformers_version", "use_cache"})
"""Fields of a config that change no output of a loaded model: where it was saved, how classes are called, what else is
given back."""


def of_model(model: nn.Module) -> str:
    """A hash of every weight and buffer, by name, and of what else of the config differs from its class's defaults (how far
    positions reach, where logits are capped); equal for equal models on any machine."""
    digest = hashlib.blake2b(digest_size=16)
    config = getattr(model, "config", None)
    if isinstance(config, PreTrainedConfig):
        digest.update(json.dumps(_counting(config.to_diff_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _counting(said: Any) -> Any:
    """The fields that count, in a config and those within it."""
    if not isinstance(said, dict):
        return said
    return {str(name): _counting(value) for name, value in said.items()
            if name not in SAY_NOTHING and not str(name).startswith("_")}


def of_processor(processor: Any) -> str:
    """A hash of how a tokenizer (its chat template included) or image processor makes inputs; not of where it was loaded
    from."""
    if isinstance(processor, PreTrainedTokenizerBase) and processor.is_fast:
        rules = json.loads(processor.backend_tokenizer.to_str())
        said: Any = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    elif isinstance(processor, PreTrainedTokenizerBase):
        said = {"class": type(processor).__name__, "vocabulary": processor.get_vocab()}
    elif hasattr(processor, "to_dict"):
        said = {name: value for name, value in processor.to_dict().items() if not name.startswith("_")}
    else:  # of a task of one's own
        said = {"class": f"{type(processor).__module__}.{type(processor).__qualname__}"}
    if template := getattr(processor, "chat_template", None):
        said["chat template"] = template
    return hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
