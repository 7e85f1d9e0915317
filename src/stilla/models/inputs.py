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
    """What was read in one forward, with its graph. mask: the positions that are there, where a mask says it. sound: whether
    it is a wave, or a spectrogram. bins_first: whether that is (batch, bins, frames), as Whisper hears it."""

    tensor: Tensor | None = None
    mask: Tensor | None = None
    sound: bool = False
    bins_first: bool = False

    def weighed(
        self, logits: Float[Tensor, "rows classes"], classes: Int[Tensor, " rows"], *, again: bool = False
    ) -> Float[Tensor, "batch positions"]:
        """Σ over numbers of (∂ answer / ∂ what is read) · what is read, a position each; zero where nothing is.

        The answer is what the logits of these classes are together (`chosen`). again: differentiable itself. In at least
        float32.

        Raises:
            CompatibilityError: nothing was read.
        """
        if self.tensor is None:
            raise CompatibilityError("saliency: the model was not seen to read numbers or to embed tokens; leave it out")
        (gradient,) = torch.autograd.grad(chosen(logits, classes), self.tensor, create_graph=again, retain_graph=True)
        return self.by_position(gradient * self.tensor)

    def by_position(self, numbers: Tensor) -> Float[Tensor, "batch positions"]:
        """Their sum at each position: of channels at a pixel, of the numbers of a token, of a frame's bins."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        if numbers.dim() == 4:
            numbers = numbers.sum(1).flatten(1)
        elif numbers.dim() == 3:
            numbers = numbers.sum(1 if self.bins_first else -1)
        if self.mask is None or self.mask.shape != numbers.shape:
            return numbers
        return torch.where(self.mask, numbers, 0)


def chosen(logits: Float[Tensor, "rows classes"], classes: Int[Tensor, " rows"]) -> Float[Tensor, ""]:
    """The logit of each row's class, summed over rows; rows of a class below 0 have no part in it. What an example's own rows
    are derived by is what it reads itself, so that the sum over a batch gives each example its own."""
    there = classes >= 0
    return logits[there].gather(1, classes[there][:, None]).sum()


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
            read.sound = read.tensor.dim() < 4
            exits.enter_context(_without_leaves(model))
            read.bins_first = read.tensor.dim() == 3 and _bins(model) == read.tensor.shape[1] != read.tensor.shape[2]
        elif (table := entry_of(model)) is not None:
            exits.enter_context(replacing(table, _noted(read, instead)))
        yield said, read


@contextmanager
def _without_leaves(model: nn.Module) -> Iterator[None]:
    """wav2vec2 and its kin make a leaf of the wave that they train on (for checkpoints of activations), which one with a
    gradient of its own cannot be; their `_requires_grad` says whether they do, and nothing else."""
    making = [one for one in model.modules() if vars(one).get("_requires_grad") is True]
    for one in making:
        vars(one)["_requires_grad"] = False
    try:
        yield
    finally:
        for one in making:
            vars(one)["_requires_grad"] = True


def _bins(model: nn.Module) -> int | None:
    """Of a frame of the spectrograms that it hears; None where its config names none."""
    said = vars(model.config) if isinstance(model, PreTrainedModel) else {}
    return said.get("num_mel_bins")


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
