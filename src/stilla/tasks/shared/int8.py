"""Weights of linear layers as 8-bit integers, for a teacher that only answers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Int8Linear(nn.Module):
    """A linear layer that keeps a quarter of the bytes: one scale per output, symmetric, rounded to nearest.

    w ≈ scale · q with q in [-127, 127] and scale = max|w| / 127 per output: no weight is off by more than
    scale / 2.
    The product itself runs in the input's precision, on any device; activations are not quantised.
    """

    quantised: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # an all-zero row has no scale; any positive one gives its zeros back
        scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("quantised", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """What is multiplied with; models that look at their layers' weights see this."""
        return self.quantised.to(self.scale.dtype) * self.scale

    def forward(self, inputs: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        weight = self.quantised.to(inputs.dtype) * self.scale.to(inputs.dtype)
        return functional.linear(inputs, weight, self.bias)


def quantise(model: nn.Module, *, but: nn.Module | None = None) -> nn.Module:
    """Replace every linear layer in place; embeddings, norms and convolutions stay. Returns the model.

    `but`: a layer that stays as it is (a head over a vocabulary, which is read apart from the model, and tied).
    """
    for name, child in list(model.named_children()):
        if type(child) is nn.Linear and child is not but:
            setattr(model, name, Int8Linear(child))
        else:
            quantise(child, but=but)
    return model
