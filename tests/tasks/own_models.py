"""Models of a person's own, to be loaded by import path."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Convolutional(nn.Module):
    """Takes one positional tensor and returns logits, as torch's own ResNets do."""

    def __init__(self, num_labels: int = 2) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, num_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).relu().mean((2, 3)))


class Bag(nn.Module):
    """Takes tokens and mask by name and returns a dictionary."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 8)
        self.head = nn.Linear(8, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask.unsqueeze(-1).float()
        return {"logits": self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1)), "loss": torch.zeros(())}


class Maskless(nn.Module):
    """Takes anything, knows padding by its token, and returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(32, 2, padding_idx=0, mode="mean")

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        return self.embedding(tokens), None


class Named(nn.Module):
    """Takes everything by name and returns an object with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, **inputs: Tensor) -> Any:
        class Output:
            logits = self.head(inputs["pixel_values"].mean((2, 3)))

        return Output()


class Flat(nn.Module):
    """Returns something that is not (batch, labels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


def not_a_module() -> str:
    return "no"


number = 3
