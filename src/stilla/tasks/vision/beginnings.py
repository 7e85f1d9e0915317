"""Random weights of models that find things by queries, as their authors begin them.

transformers draws all matrices and queries of DETR's family and of MaskFormer with a deviation of 0.02. The attention of
such a decoder looks everywhere alike, and its queries say all but the same of a picture: which of them answers to which
thing is then decided by next to nothing, and short trainings end before they part (benchmarks/RESULTS.md, whole pictures).
DETR's authors draw queries with a deviation of 1, and matrices of the transformer after Glorot and Bengio (2010);
MaskFormer's do as they do. YOLOS' tokens for things begin as zeros, all the same; its authors draw them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_FAMILIES = frozenset({"detr", "table-transformer", "conditional_detr", "deformable_detr", "dab-detr", "maskformer"})
"""The others begin as their authors have it."""
_HEADS = ("class_embed", "bbox_embed")
_TOKENS = ("cls_token", "detection_tokens", "position_embeddings", "mid_position_embeddings")


def begin_apart(model: nn.Module) -> None:
    """Draw queries and the transformer around them anew, in place, of models that transformers begins too much alike. What
    else begins with zeros (offsets of sampling, last layers of boxes) stays."""
    config: Any = model.config
    if config.model_type == "yolos":
        for name, weight in model.named_parameters():
            if name.endswith(_TOKENS) and not weight.any():
                nn.init.trunc_normal_(weight, std=0.02)
    if config.model_type not in _FAMILIES:
        return
    for module in model.modules():
        parts = dict(module.named_children())
        queries = [one for name, one in parts.items() if name.startswith("quer") and isinstance(one, nn.Embedding)]
        for one in queries:
            nn.init.normal_(one.weight)
        stacks = [parts[name] for name in ("encoder", "decoder") if queries and name in parts]
        for place, inner in (found for stack in stacks for found in stack.named_modules()):
            if isinstance(inner, nn.Linear) and bool(inner.weight.any()) and not any(head in place for head in _HEADS):
                nn.init.xavier_uniform_(inner.weight)
