"""A small copy of a model: its class with random weights and two layers of each kind, and where these stand in the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import edited_config, quiet
from stilla.models.depths import Kept, keeping
from stilla.models.members import Member, Units
from stilla.models.stacks import LayerStack, find_stacks


@dataclass(frozen=True)
class Layers:
    """Where a probe's layers are: `path.number.` of each with the path, and those of the model that each stands for."""

    prefixes: Mapping[str, str]
    stands_for: Mapping[str, tuple[str, ...]]

    def place(self, name: str) -> str:
        """The same for what stands at the same place of all layers of a stack; the name itself outside of layers."""
        prefix = self.of(name)
        return name if prefix is None else f"{self.prefixes[prefix]} {name.removeprefix(prefix)}"

    def holds(self, name: str) -> bool:
        """Whether a tensor is in a layer; where no layers were found, any may be."""
        return not self.prefixes or self.of(name) is not None

    def of(self, name: str) -> str | None:
        """The layer that a tensor is in."""
        return next((prefix for prefix in self.prefixes if name.startswith(prefix)), None)

    def in_model(self, units: Units) -> list[Units]:
        """The same units of the whole model: a group for every layer that their own stands for, or one over all layers."""
        layer = {self.of(sink.tensor) for sink in units.sinks}
        if len(layer) == 1 and (own := layer.pop()) is not None:
            return [self._spread(units, {own: (prefix,)}) for prefix in self.stands_for.get(own, ())]
        return [self._spread(units, self.stands_for)]

    def _spread(self, units: Units, to: Mapping[str, tuple[str, ...]]) -> Units:
        def spread(member: Member) -> list[Member]:
            own = self.of(member.tensor)
            if own is None:
                return [member]
            return [replace(member, tensor=prefix + member.tensor.removeprefix(own)) for prefix in to.get(own, ())]

        members, sinks = (tuple(one for member in many for one in spread(member)) for many in (units.members, units.sinks))
        return replace(units, name=sinks[0].tensor if sinks else units.name, members=members, sinks=sinks)


def shallow(model: PreTrainedModel) -> tuple[PreTrainedModel, Layers]:
    """A model of the same class, in float32, with two layers of each kind: those that hold tensors of the same shapes."""
    stacks = find_stacks(model)
    for kept in ({stack: _two_of_each(model, stack) for stack in stacks}, {stack: _all_of(stack) for stack in stacks}):
        try:
            changes = {path: value for stack, indices in kept.items() if indices != _all_of(stack)
                       for path, value in keeping(model.config, stack, indices).items()}
            with quiet(), torch.random.fork_rng(devices=[]):
                made = type(model)._from_config(edited_config(model.config, changes), dtype=torch.float32)
        except Exception:  # each class refuses a config in its own way; this one may need all of its layers
            continue
        if (layers := _layers(made, model, kept)) is not None:
            return made.to(model.device), layers
    raise CompatibilityError(f"{type(model).__name__} cannot be built anew from its own config")


def _two_of_each(model: PreTrainedModel, stack: LayerStack) -> Kept:
    kept = []
    for path in stack.paths:
        kinds = [_kind(layer) for layer in model.get_submodule(path).children()]
        kept.append(tuple(index for index, kind in enumerate(kinds) if kinds[:index].count(kind) < 2))
    return tuple(kept)


def _all_of(stack: LayerStack) -> Kept:
    return tuple(tuple(range(depth)) for depth in stack.depths)


def _kind(layer: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(weight.shape)) for name, weight in layer.named_parameters()]


def _layers(made: nn.Module, model: nn.Module, kept: Mapping[LayerStack, Kept]) -> Layers | None:
    """None where a layer turned out to be of another kind at its new place."""
    prefixes: dict[str, str] = {}
    stands_for: dict[str, tuple[str, ...]] = {}
    for stack, indices_per_path in kept.items():
        for path, indices in zip(stack.paths, indices_per_path, strict=True):
            ours = {f"{path}.{name}.": _kind(layer) for name, layer in made.get_submodule(path).named_children()}
            theirs = {f"{path}.{name}.": _kind(layer) for name, layer in model.get_submodule(path).named_children()}
            wanted = [list(theirs.values())[index] for index in indices]
            if list(ours.values()) != wanted:
                return None
            prefixes |= dict.fromkeys(ours, path)
            first = [name for position, name in enumerate(ours) if wanted[position] not in wanted[:position]]
            stands_for |= {name: tuple(other for other, kind in theirs.items() if kind == ours[name]) for name in first}
    return Layers(prefixes, stands_for)


def scramble(model: PreTrainedModel) -> None:
    """Weights none of which is zero, or like another, by chance."""
    model.eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                drawn = torch.randn(weight.shape, generator=generator) * (weight.numel() / weight.shape[0]) ** -0.5
            else:
                drawn = 0.5 + 0.2 * torch.randn(weight.shape, generator=generator)
            if weight.dim():
                weight.copy_(drawn)
