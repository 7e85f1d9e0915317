"""Weights that layers share, made their own, so that what is saved loads without the tie.

A config says whether embeddings and head are one tensor. Most classes load untied weights once it says no. Some ignore
it, or compute otherwise then (T5, LongT5); they keep their config, and `from_pretrained` leaves apart what it finds
apart in a file: it ties what is equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.errors import all_of
from stilla.models.configs import config_sections, edited_config, skeleton
from stilla.models.features import made_up_inputs
from stilla.models.modes import in_eval_mode

_TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class Shared:
    """Layers with an adapter, and others without, that have the same weights; `weights`: all names of these."""

    adapted: tuple[str, ...]
    others: tuple[str, ...]
    weights: tuple[str, ...]

    def __str__(self) -> str:
        return f"{all_of(self.adapted + self.others)} share their weights"


def shared_weights(model: nn.Module, adapters: Mapping[str, nn.Module]) -> list[Shared]:
    """What more than one layer has, one of them with an adapter."""
    by_id = {id(layer) for layer in adapters.values()}
    found = []
    for names in _groups(model):
        layers = {id(_layer(model, name)): _plain(name).rpartition(".")[0] for name in names}
        adapted = tuple(sorted(name for key, name in layers.items() if key in by_id))
        others = tuple(sorted(name for key, name in layers.items() if key not in by_id))
        if adapted and len(layers) > 1:
            found.append(Shared(adapted, others, tuple(names)))
    return found


def untie(model: PreTrainedModel, shared: Sequence[Shared]) -> bool:
    """Gives every layer weights of its own, where a saved model can be loaded so; False, and nothing done, elsewhere."""
    plain = [[_plain(name) for name in one.weights] for one in shared]
    untied = _untied_config(model.config)
    built = None if untied is None else _tensors(skeleton(model, untied))
    apart = built is not None and all(len({id(built[name]) for name in names}) == len(names) for names in plain)
    if built is not None and apart and _computes_the_same_untied(model):
        _say_untied(model)
        for names in _groups(model):
            _split(model, names, [id(built[_plain(name)]) for name in names])
        return True
    known = model.all_tied_weights_keys
    if all({*names} <= {*known, *known.values()} for names in plain):
        for one in shared:
            _split(model, one.weights, range(len(one.weights)))
        return True
    return False


def _untied_config(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """The config without ties, as it would be loaded again; None where anything else of it would change."""
    places = [path for path, section in config_sections(config) if vars(section).get(_TIED)]
    loaded = edited_config(config, {(*path, _TIED): False for path in places})
    tied = edited_config(config, {}).to_dict()
    for path in places:
        section = tied
        for key in path:
            section = section[key]
        section[_TIED] = False
    return loaded if places and loaded.to_dict() == tied else None


def _computes_the_same_untied(model: PreTrainedModel) -> bool:
    """Some classes take it for a sign of how they scale their logits. False also where it cannot be asked."""
    sections = list(_tied_sections(model))
    try:
        own = _answer(model)
        for section in sections:
            setattr(section, _TIED, False)
        return torch.allclose(own, _answer(model), rtol=1e-3, atol=1e-3)
    except Exception:  # whatever a class says to inputs that it does not take
        return False
    finally:
        for section in sections:
            setattr(section, _TIED, True)


def _answer(model: PreTrainedModel) -> Tensor:
    with in_eval_mode(model), torch.no_grad():
        outputs = model(**made_up_inputs(model))
    answer: Tensor = outputs["logits"] if "logits" in outputs else outputs[0]
    return answer


def _say_untied(model: PreTrainedModel) -> None:
    for section in list(_tied_sections(model)):
        setattr(section, _TIED, False)
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.all_tied_weights_keys = {}


def _tied_sections(model: PreTrainedModel) -> Iterator[PreTrainedConfig]:
    """Of all parts: some have a copy of the whole's config."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    for config in configs.values():
        yield from (section for _, section in config_sections(config) if vars(section).get(_TIED))


def _split(model: nn.Module, names: Collection[str], kinds: Collection[int]) -> None:
    """Names of one kind share a tensor; the first kind keeps the one that all have had."""
    made: dict[int, nn.Parameter] = {}
    for name, kind in zip(names, kinds, strict=True):
        weight = model.get_parameter(name)
        if kind not in made:
            made[kind] = nn.Parameter(weight.detach().clone(), weight.requires_grad) if made else weight
        layer, _, last = name.rpartition(".")
        setattr(model.get_submodule(layer), last, made[kind])


def _groups(model: nn.Module) -> list[list[str]]:
    """Names of parameters that are one tensor."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _plain(name: str) -> str:
    """As it is without adapters."""
    return name.replace(".base_layer.", ".")


def _layer(model: nn.Module, name: str) -> nn.Module:
    """The layer that has a weight, adapter included."""
    return model.get_submodule(name.rpartition(".")[0].removesuffix(".base_layer"))
