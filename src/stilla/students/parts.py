"""Adapters as folders beside a student: small parts, of which a person loads the one that is wanted.

In peft's own format (`adapter_config.json`, `adapter_model.safetensors`): transformers reads the student's folder and one of
these, `model.load_adapter(folder)`.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stilla.errors import CompatibilityError
from stilla.recipe import Lora
from stilla.runtime.files import flush_all, write_whole
from stilla.students.lora import has_adapters, lora_config, merged, with_adapters
from stilla.students.student import LayerMap, Student

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OUTSIDE = "base_model.model."
"""How names of layers begin in peft's files."""


def part_of(shared: nn.Module, spec: Lora, layer_map: LayerMap) -> Student:
    """A copy of a student with adapters that change nothing yet, and that alone are trained. The caller seeds torch.

    Raises:
        CompatibilityError: as for `with_adapters`; the student is no model of transformers, which could load them again.
    """
    if not isinstance(shared, PreTrainedModel):
        raise CompatibilityError(f"personal: {type(shared).__name__} is no model of transformers, which could load a part "
                                 "beside it. Give a student of transformers")
    try:
        return with_adapters(Student(copy.deepcopy(merged(shared)), layer_map), spec)
    except CompatibilityError as error:
        raise CompatibilityError(str(error).replace("student.lora", "personal.lora")) from error


def numbers_of(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' own weights, by the names that they have in peft's files."""
    return {f"{_OUTSIDE}{name.replace('.default', '')}": value.detach() for name, value in model.named_parameters()
            if ".lora_" in name}


def write_part(model: nn.Module, spec: Lora, folder: Path) -> None:
    """The adapters of a trained part."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.cpu().contiguous() for name, value in numbers_of(model).items()}
    layers = {name.rsplit(".lora_", 1)[0].removeprefix(_OUTSIDE) for name in weights}
    config = lora_config(spec, sorted(layers))
    # peft finds it out by itself, and warns
    config.fan_in_fan_out = any(isinstance(model.get_submodule(f"{name}.base_layer"), Conv1D) for name in layers)
    plain = {**config.to_dict(), "target_modules": sorted(layers), "inference_mode": True}
    save_file(weights, folder / WEIGHTS)
    write_whole(folder / CONFIG, json.dumps(plain, default=str, indent=1, sort_keys=True) + "\n")
    flush_all(folder)


def read_part(shared: nn.Module, folder: Path) -> nn.Module:
    """A copy of a student with the part of this folder in it.

    Raises:
        CompatibilityError: it is none, or not of this student.
    """
    from peft import LoraConfig, inject_adapter_in_model

    made = copy.deepcopy(shared)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when it was trained
            inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), made, adapter_name="default")
            weights = load_file(folder / WEIGHTS)
        places = numbers_of(made)
        if places.keys() != weights.keys() or not has_adapters(made):
            raise ValueError("it has other layers")
        with torch.no_grad():
            for name, value in places.items():
                value.copy_(weights[name])
    except (ValueError, OSError, RuntimeError) as error:
        raise CompatibilityError(f"{folder}: no part of this student can be read there: {error}") from error
    return made.eval()
