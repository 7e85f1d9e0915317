"""What an answer rests on: the gradient of a model's answer with respect to what it reads, times what it reads.

What is read is the first input of numbers (pixels, a wave, a spectrogram), else what tokens are embedded by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.entry import entry_of
from stilla.models.features import replacing

ONCE = ("flash_attention_2", "flash_attention_3", "flex_attention")
"""Implementations of attention whose gradient has none."""


@dataclass
class Read:
    """What was read in one forward, with its graph. mask: the positions that are there, where a mask says it."""

    tensor: Tensor | None = None
    mask: Tensor | None = None

    def weighed(
        self, logits: Float[Tensor, "batch classes"], classes: Int[Tensor, " batch"], *, again: bool = False
    ) -> Float[Tensor, "batch positions"]:
        """Σ over numbers of (∂ logit of the class / ∂ what is read) · what is read, a position each; zero where nothing is.

        again: differentiable itself. In at least float32.

        Raises:
            CompatibilityError: nothing was read, or the answers are not of an example each.
        """
        if self.tensor is None:
            raise CompatibilityError("saliency: the model was not seen to read numbers or to embed tokens; leave it out")
        if len(logits) != len(self.tensor):
            raise CompatibilityError(f"saliency: {len(logits)} answers to {len(self.tensor)} examples; it is of classes of "
                                     "whole examples, one each. Leave it out")
        chosen = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, self.tensor, create_graph=again, retain_graph=True)
        return self.by_position(gradient * self.tensor)

    def by_position(self, numbers: Tensor) -> Float[Tensor, "batch positions"]:
        """Their sum at each position: of channels at a pixel, of the numbers of a token."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        if numbers.dim() == 4:
            numbers = numbers.sum(1).flatten(1)
        elif numbers.dim() == 3:
            numbers = numbers.sum(-1)
        if self.mask is None or self.mask.shape != numbers.shape:
            return numbers
        return torch.where(self.mask, numbers, 0)


@contextmanager
def reading(
    model: nn.Module, inputs: Mapping[str, Any], instead: Tensor | None = None
) -> Iterator[tuple[dict[str, Any], Read]]:
    """What to call the model with in one forward, and what it reads there.

    Attention runs in plain operations, whose gradient has a gradient. `instead`: read this in its place (a point on the way
    from nothing to it).

    Raises:
        CompatibilityError: attention whose gradient has none.
    """
    refuse_attention(model)
    said, read = dict(inputs), Read(mask=_mask(inputs))
    number = next((name for name, value in said.items() if isinstance(value, Tensor) and value.is_floating_point()), None)
    with ExitStack() as exits:
        exits.enter_context(sdpa_kernel(SDPBackend.MATH))
        if number is not None:
            read.tensor = said[number] = (said[number] if instead is None else instead).detach().requires_grad_()
        elif (table := entry_of(model)) is not None:
            exits.enter_context(replacing(table, _noted(read, instead)))
        yield said, read


def refuse_attention(model: nn.Module) -> None:
    """Raises:
        CompatibilityError: its attention's gradient has no gradient.
    """
    used = str(model.config._attn_implementation) if isinstance(model, PreTrainedModel) else ""
    if used in ONCE:
        raise CompatibilityError(f"saliency: attention by {used}, whose gradient has no gradient; load the model with "
                                 "attn_implementation eager or sdpa")


def _noted(read: Read, instead: Tensor | None) -> Callable[[Tensor], Tensor]:
    def noted(made: Tensor) -> Tensor:
        if read.tensor is not None:  # decoders may embed by the same table
            return made
        if instead is not None:
            made = instead.detach()
        if not made.requires_grad:
            made = made.detach().requires_grad_()
        read.tensor = made
        return made

    return noted


def _mask(inputs: Mapping[str, Any]) -> Tensor | None:
    mask = inputs.get("attention_mask")
    return mask.bool() if isinstance(mask, Tensor) else None
