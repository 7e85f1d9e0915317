"""Learning numbers in standard units: z = (y - mean) / standard deviation, of each output.

Models answer in the data's own units, before and after a training, and so does everything that is saved or measured.
What losses see of both sides, and of the labels, are standard units (`Classification.signals`): a squared error there is
the same whatever the units are, as wanted beside other terms, and outputs of several sizes count alike. While a model is
trained, so is the last layer of its head: y = mean + deviation · (W' x + b'), with W' and b' as parameters, which then need
steps of the usual size. Before and after, these stand in its weight and bias: W = deviation · W', b = mean + deviation · b'.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.tasks.shared.problem import Scale

logger = logging.getLogger(__name__)

_FAR = 3.0
"""In standard deviations, from which distance of the mean on a head without a bias is told of."""


def standard(numbers: Float[Tensor, "examples outputs"], scale: Scale) -> Float[Tensor, "examples outputs"]:
    """(y - mean) / deviation, in at least float32."""
    numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
    return (numbers - numbers.new_tensor(scale.means)) / numbers.new_tensor(scale.deviations)


def last_layer(model: nn.Module, outputs: int) -> nn.Linear | None:
    """The linear layer that gives a model's answer: the last with so many outputs, of its head where it says which part
    that is; None where there is none."""
    body = model.base_model if isinstance(model, PreTrainedModel) else model
    inside = set() if body is model else set(body.modules())
    layers = [one for one in model.modules() if isinstance(one, nn.Linear) and one.out_features == outputs]
    return next(iter([one for one in layers if one not in inside][::-1] or layers[::-1]), None)


def begun(model: nn.Module, scale: Scale) -> None:
    """A head of new weights, whose answers lie around 0, so that they lie around the mean; in place."""
    layer = last_layer(model, len(scale.means))
    if layer is not None:
        _in_own_units(layer, scale)


@contextmanager
def learning(model: nn.Module, scale: Scale) -> Iterator[None]:
    """While a model is trained: its head's last layer has the parameters of standard units, and answers in the data's."""
    layer = last_layer(model, len(scale.means))
    if layer is None:
        logger.warning("data.label: %s has no linear layer that gives its %d numbers; they are learnt in the data's own "
                       "units (%s), at which a usual learning rate may be much too small or large", type(model).__name__,
                       len(scale.means), _said(scale))
        yield
        return
    if not layer.weight.requires_grad:  # under adapters a head stays as it is
        yield
        return
    _in_standard_units(layer, scale)
    handle = layer.register_forward_hook(_Answer(scale, biased=_bias(layer) is not None))
    try:
        yield
    finally:
        handle.remove()
        _in_own_units(layer, scale)


class _Answer:
    """What a layer in standard units says, in the data's; a class, so that a copy of the model can be made."""

    def __init__(self, scale: Scale, *, biased: bool) -> None:
        self.scale, self.biased = scale, biased

    def __call__(self, layer: nn.Module, inputs: Any, said: Tensor) -> Tensor:
        said = said.to(torch.promote_types(said.dtype, torch.float32))
        answer = said * said.new_tensor(self.scale.deviations)
        return answer + said.new_tensor(self.scale.means) if self.biased else answer


@torch.no_grad()
def _in_own_units(layer: nn.Linear, scale: Scale) -> None:
    deviations, bias = layer.weight.new_tensor(scale.deviations), _bias(layer)
    layer.weight.mul_(deviations[:, None])
    if bias is not None:
        bias.mul_(deviations).add_(bias.new_tensor(scale.means))
    elif any(abs(mean) > _FAR * deviation for mean, deviation in zip(scale.means, scale.deviations)):
        logger.warning("data.label: the head has no bias, so that it has to find the numbers' mean by its weights (%s); "
                       "numbers with a mean near 0 are learnt sooner", _said(scale))


@torch.no_grad()
def _in_standard_units(layer: nn.Linear, scale: Scale) -> None:
    deviations, bias = layer.weight.new_tensor(scale.deviations), _bias(layer)
    layer.weight.div_(deviations[:, None])
    if bias is not None:
        bias.sub_(bias.new_tensor(scale.means)).div_(deviations)


def _bias(layer: nn.Linear) -> Tensor | None:
    return layer.bias


def _said(scale: Scale) -> str:
    return ", ".join(f"{deviation:g} around {mean:g}" for mean, deviation in zip(scale.means[:5], scale.deviations))
