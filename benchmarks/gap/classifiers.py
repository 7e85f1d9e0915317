"""Models that classify single texts, without Stilla around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification


def load(folder: Path) -> Any:
    """A classifier, in float32."""
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def tokens(tokenizer: Any, texts: list[str], model: Any) -> dict[str, Tensor]:
    """As a run of Stilla cuts them: what the model can read, at most 512."""
    longest = min(512, model.config.max_position_embeddings)
    return dict(tokenizer(texts, truncation=True, max_length=longest, padding=True, return_tensors="pt"))
