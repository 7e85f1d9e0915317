"""What differs between Hugging Face models and modules of a person's own."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.tasks.shared.imported import ImportedModel


def own_module(model: nn.Module) -> nn.Module:
    """The module itself, where Stilla wraps a module of a person's own: what is stored and named is theirs."""
    return model.model if isinstance(model, ImportedModel) else model


def config_of(model: nn.Module) -> PreTrainedConfig | None:
    return model.config if isinstance(model, PreTrainedModel | ImportedModel) else None


def label_names(model: nn.Module) -> list[str]:
    """In the model's order; empty where it does not say them."""
    config = config_of(model)
    return [config.id2label[index] for index in sorted(config.id2label)] if config and config.id2label else []
