"""Another dropout than the model's own while it is trained.

A student that drops a tenth of its states answers another question than a teacher that drops nothing, and part of what
it is corrected for is that noise (Beyer et al. 2022, arXiv:2106.05237: a good teacher is consistent). What it was worth
where it was measured stands in docs/defaults.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel

from stilla.models.configs import config_sections


@contextmanager
def dropping(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Inside, every dropout of the model has this probability; None leaves it its own. Afterwards all is as before.

    Adapters keep theirs, which the recipe names apart (`student.lora.dropout`): it holds back few new weights, and takes
    nothing from the states that the model passes on.

    Layers hold it as a module, or as a number in an attribute whose name ends in `dropout` (BART's `dropout`,
    Llama's `attention_dropout`). LayerDrop, which leaves out whole layers, and SpecAugment, which masks what a model hears,
    are noise of the student alone too: where a probability is given, they are off. Stochastic depth is not meant. The
    model's config is as before afterwards: what is saved can be fine-tuned as ever.
    """
    before: list[tuple[Any, str, Any]] = []
    if probability is not None:
        before = [*_places(model), *_whole_layers(model)]
        for place, name, own in before:
            setattr(place, name, probability if name == "p" or name.endswith("dropout") else type(own)(0))
    try:
        yield
    finally:
        for place, name, own in before:
            setattr(place, name, own)


def leaves_out(model: nn.Module) -> bool:
    """Whether a model, left to itself, does without some of its weights by chance."""
    return next(_whole_layers(model), None) is not None


def _whole_layers(model: nn.Module) -> Iterator[tuple[Any, str, Any]]:
    """LayerDrop, of modules and as configs have it, which some models read while they run; and SpecAugment's switch."""
    configs = {id(section): section for module in model.modules() if isinstance(module, PreTrainedModel)
               for _, section in config_sections(module.config)}
    for name, parameter in model.named_parameters():
        if name.endswith("masked_spec_embed") and parameter.requires_grad:
            yield parameter, "requires_grad", True  # what stands in for masked frames: then no part of any loss
    for place in (*model.modules(), *configs.values()):
        for name, value in list(vars(place).items()):
            if (name.endswith("layerdrop") and isinstance(value, float)) or (name == "apply_spec_augment" and value is True):
                yield place, name, value


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    for path, module in model.named_modules():
        if "lora_dropout" in path.split("."):
            continue
        if isinstance(module, _DropoutNd):
            yield module, "p", module.p
        for name, value in vars(module).items():
            if name.endswith("dropout") and isinstance(value, float):
                yield module, name, value
