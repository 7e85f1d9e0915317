"""Students that learn through adapters of low rank (LoRA, Hu et al. 2022, arXiv:2106.09685), by peft.

The adapters stand inside the model, whose class, config and layers stay what they were: objectives, hidden states and
resuming need to know nothing of them. What is handed over has them merged into its weights.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.recipe import Lora
from stilla.students.student import Student

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

_NAME = "default"


def with_adapters(student: Student, spec: Lora) -> Student:
    """The same student with adapters, which alone are trained; at first they change nothing. The caller seeds torch.

    Raises:
        CompatibilityError: peft is missing, or the model has no such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise CompatibilityError('student.lora needs peft, which is not installed: pip install "stilla[peft]"') from error
    targets: Any = "all-linear" if spec.targets is None else list(spec.targets)
    config = LoraConfig(r=spec.r, lora_alpha=spec.alpha or 2 * spec.r, lora_dropout=spec.dropout, target_modules=targets)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # GPT-2's layers are stored the other way round: peft sees it
            inject_adapter_in_model(config, student.model, adapter_name=_NAME)
    except ValueError as error:
        raise CompatibilityError(f"student.lora.targets: {str(error).splitlines()[0]}") from error
    return student


def merged(model: nn.Module) -> nn.Module:
    """A copy in which the adapters are part of the weights; the model itself where it has none."""
    if not _adapters(model):
        return model
    whole = copy.deepcopy(model)
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
