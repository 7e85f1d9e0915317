"""What a model embeds by what it reads: its table of tokens, or what patches and frames go through."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def entry_of(model: nn.Module) -> nn.Module | None:
    """None where the model has none of its own: CANINE hashes characters, SegFormer has stages of patches."""
    if not isinstance(model, PreTrainedModel):
        return None
    try:
        found: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:  # what transformers raises where it knows of none
        return None
    return found


def table_of(model: nn.Module) -> nn.Embedding | None:
    """A row for each token; None where tokens have none."""
    found = entry_of(model)
    return found if isinstance(found, nn.Embedding) else None
