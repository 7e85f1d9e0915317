"""Students that learn through adapters of low rank (LoRA, Hu et al. 2022, arXiv:2106.09685), by peft.

The adapters stand inside the model, whose class, config and layers stay what they were: objectives, hidden states and
resuming need to know nothing of them. What is handed over has them merged into its weights.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_of
from stilla.recipe import Lora
from stilla.students.student import Student
from stilla.students.untying import Shared, shared_weights, untie

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

logger = logging.getLogger(__name__)

_NAME = "default"


def with_adapters(student: Student, spec: Lora, whole: Sequence[str] = ()) -> Student:
    """The same student with adapters, which alone are trained; at first they change nothing. The caller seeds torch.

    `whole`: modules that are trained themselves and get none.

    A layer that shares its weights (a tied head or embedding) gets its own: merged into shared ones, an adapter would
    change every layer that has them.

    Raises:
        CompatibilityError: peft is missing, the model has no such layers, or they share weights that cannot be untied.
    """
    config = lora_config(spec, None if spec.targets is None else list(spec.targets), whole)
    from peft import inject_adapter_in_model

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # GPT-2's layers are stored the other way round: peft sees it
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # they are untied below
            inject_adapter_in_model(config, student.model, adapter_name=_NAME)
    except ValueError as error:
        raise CompatibilityError(f"student.lora.targets: {str(error).splitlines()[0]}") from error
    for name in whole:
        student.model.get_submodule(name).requires_grad_(True)
    _refuse_dropout_on_the_head(student.model, spec)
    before = _numbers(student.model)
    for shared in _with_own_weights(student.model):
        logger.warning(f"student.lora.targets: {shared}. Each gets its own in the student, so that an adapter "
                       f"changes one alone; it grows by {_numbers(student.model) - before:,} parameters. Leave "
                       f"{all_of(shared.adapted)} out to keep them tied")
    return student


def lora_config(spec: Lora, targets: list[str] | None, whole: Sequence[str] = ()) -> LoraConfig:
    """peft's words for it. targets: names of layers, or how they end; None: all linear ones but the head. whole: modules in
    which none is.

    Raises:
        CompatibilityError: peft is missing.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise CompatibilityError('adapters (lora) need peft, which is not installed: pip install "stilla[peft]"') from error
    return LoraConfig(r=spec.r, lora_alpha=spec.alpha or 2 * spec.r, lora_dropout=spec.dropout,
                      target_modules="all-linear" if targets is None else targets,
                      exclude_modules="|".join(rf"{re.escape(name)}\..*" for name in whole) or None)


def merged(model: nn.Module) -> nn.Module:
    """A copy in which the adapters are part of the weights; the model itself where it has none."""
    if not _adapters(model):
        return model
    whole = copy.deepcopy(model)
    _with_own_weights(whole)
    for name, layer in _adapters(whole).items():
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(whole.get_submodule(parent), last, layer.get_base_layer())
    return whole.requires_grad_(True)


def put_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Weights of a merged model into one with adapters, which begin anew: they change nothing at first."""
    adapters = _adapters(model)
    places = {_inside(name, adapters): value for name, value in weights.items()}
    missing, strange = model.load_state_dict(places, strict=False)
    lost = [name for name in missing if ".lora_" not in name]
    if strange or lost:
        raise RuntimeError(f"missing {lost[:5]}, unknown {strange[:5]}")
    # what they begin with must not depend on what was drawn before: a run that continues begins the same
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in adapters.values():
            layer.reset_lora_parameters(_NAME, init_lora_weights=True)


def has_adapters(model: nn.Module) -> bool:
    return bool(_adapters(model))


def _with_own_weights(model: nn.Module) -> list[Shared]:
    """Unties the layers with an adapter from those that share their weights, and says which they were."""
    found = shared_weights(model, _adapters(model))
    if found and not (isinstance(model, PreTrainedModel) and untie(model, found)):
        raise CompatibilityError(
            f"student.lora.targets: {found[0]}, and {type(model).__name__} cannot be loaded otherwise: merged, an adapter "
            f"would change all of them. Leave {all_of(found[0].adapted)} out of `targets`, or give a student whose layers "
            "have weights of their own")
    return found


def _refuse_dropout_on_the_head(model: nn.Module, spec: Lora) -> None:
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    names = [name for name, layer in _adapters(model).items() if layer is head]
    if names and spec.dropout > 0:
        raise CompatibilityError(
            f"student.lora.dropout: got {spec.dropout:g}; expected 0 where {names[0]}, the head, is among the targets: its "
            f"losses read it as one weight, and none can stand for a dropout. Set it to 0, or leave {names[0]} out")


def _numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _inside(name: str, adapters: Mapping[str, LoraLayer]) -> str:
    """Where a weight stands when its layer has an adapter around it."""
    layer, _, last = name.rpartition(".")
    return f"{layer}.base_layer.{last}" if layer in adapters else name


def _adapters(model: nn.Module) -> dict[str, LoraLayer]:
    """Layers with an adapter, by name. Without peft there are none."""
    if not any("lora_A" in dict(module.named_children()) for module in model.modules()):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
