"""Whether a layer computes at its new place what it did at its old one: the switches that are no weights.

A config cannot say everything about each layer. Swin shifts the windows of every second layer, ModernBERT has
no norm before its first attention: by position. What decides it stands as plain attributes in the layers'
modules, and is compared between models that were just built: a forward may change such attributes (Swin's
`shift_size`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from transformers import PreTrainedModel

from stilla.models.depths import Kept
from stilla.models.stacks import LayerStack

# (module, attribute) within a layer
_Key = tuple[str, str]


@dataclass(frozen=True)
class Misfit:
    """The teacher's layer `index` at `path` would compute something else as the student's `position`."""

    path: str
    index: int
    position: int
    difference: str


def misfits(student: PreTrainedModel, teacher: PreTrainedModel, kept: Mapping[LayerStack, Kept]) -> list[Misfit]:
    """The layers that do not fit their place; both models as their class builds them, without weights."""
    found = []
    for stack, indices_per_path in kept.items():
        for path, indices in zip(stack.paths, indices_per_path, strict=True):
            places = _Places(student, teacher, path)
            for position, index in enumerate(indices):
                difference = places.difference(position, index)
                if difference:
                    found.append(Misfit(path, index, position, difference))
    return found


def nearest_fit(student: PreTrainedModel, teacher: PreTrainedModel, stack: LayerStack, wanted: Kept) -> Kept:
    """The choice of layers nearest to `wanted` that fit their places; `wanted` itself where there is none."""
    fits = []
    for path, indices in zip(stack.paths, wanted, strict=True):
        places = _Places(student, teacher, path)
        depth = len(places.theirs)
        allowed = [
            [index for index in range(depth) if not places.difference(position, index)]
            for position in range(len(indices))
        ]
        fits.append(_nearest_rising(indices, allowed) or indices)
    return tuple(fits)


def _nearest_rising(wanted: Sequence[int], allowed: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """Rising numbers, each allowed at its position, at the least total distance from the wanted ones."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {-1: (0, ())}  # last number -> distance, numbers
    for target, choices in zip(wanted, allowed, strict=True):
        longer: dict[int, tuple[int, tuple[int, ...]]] = {}
        for number in choices:
            before = [entry for last, entry in best.items() if last < number]
            if before:
                distance, numbers = min(before)
                longer[number] = (distance + abs(number - target), (*numbers, number))
        best = longer
    return min(best.values())[1] if best else None


class _Places:
    """The layers at one path of a student and of its teacher."""

    def __init__(self, student: nn.Module, teacher: nn.Module, path: str) -> None:
        self.ours = [_Layer(layer) for layer in student.get_submodule(path).children()]
        self.theirs = [_Layer(layer) for layer in teacher.get_submodule(path).children()]
        self.numbering = set(_numbering(self.theirs))

    def difference(self, position: int, index: int) -> str:
        """The first thing that differs; '' where the layer fits."""
        our, their = self.ours[position], self.theirs[index]
        only_ours = our.shapes.keys() - their.shapes.keys()
        lent = {name for name in only_ours if self._lender(name) == position}
        unknown = (their.shapes.keys() - our.shapes.keys()) | (only_ours - lent)
        if unknown:
            return f"only one of the two has `{min(unknown)}`"
        for name in sorted(our.shapes.keys() & their.shapes.keys()):
            if our.shapes[name] != their.shapes[name]:
                return f"its `{name}` has the shape {our.shapes[name]}, not {their.shapes[name]}"
        # a module that holds a lent tensor has a switch that says so: `has_relative_attention_bias`
        holders = {name.rsplit(".", levels)[0] for name in lent for levels in (1, 2)}
        for key in sorted(our.kinds.keys() & their.kinds.keys() - self.numbering):
            if our.kinds[key] != their.kinds[key] and key[0] not in holders:
                return f"its `{key[1]}` is {our.kinds[key]!r}, not {their.kinds[key]!r}"
        return ""

    def _lender(self, name: str) -> int | None:
        """The only layer with such a tensor, which all of them use (T5's relative position bias, in block 0)."""
        holders = [index for index, layer in enumerate(self.theirs) if name in layer.shapes]
        return holders[0] if len(holders) == 1 else None


class _Layer:
    def __init__(self, layer: nn.Module) -> None:
        self.shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
        self.kinds: dict[_Key, object] = {
            (name, attribute): value
            for name, module in layer.named_modules()
            for attribute, value in vars(module).items()
            if attribute != "training" and not attribute.startswith("_") and _is_plain(value)
        }


def _is_plain(value: object) -> bool:
    """No floats: drop rates rise with depth and change no output. No lists: they may speak of all layers."""
    if isinstance(value, tuple):
        return all(isinstance(entry, int | str) for entry in value)
    return value is None or isinstance(value, int | str)


def _numbering(layers: Sequence[_Layer]) -> Iterator[_Key]:
    """Attributes that only number the layers (`layer_idx`): whole numbers that rise from layer to layer.

    Layers of one kind may hold them where those of another do not.
    """
    for key in {key for layer in layers for key in layer.kinds}:
        values = [layer.kinds[key] for layer in layers if key in layer.kinds]
        numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        alone = len(numbers) == 1 and layers[numbers[0] % len(layers)].kinds.get(key) == numbers[0]
        rising = len(numbers) > 1 and all(before < after for before, after in pairwise(numbers))
        if len(numbers) == len(values) and (alone or rising):
            yield key
