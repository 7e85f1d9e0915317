"""The hidden states of chosen teacher layers (FitNets, arXiv:1412.6550; Patient KD, arXiv:1908.09355; TinyBERT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.objectives._distances import Distance, distance, projected
from stilla.objectives.base import FeatureObjective, LayerMap
from stilla.signals import Dims, Pooling, Signals, Stack

Pair = tuple[str, int, int]
"""Stack, student layer, teacher layer."""


class Hidden(FeatureObjective):
    """How far the student's hidden states are from those of the teacher's layers they answer to.

    Mean over the compared layers of the mean over valid tokens of

    - `mse`: |W s - t|² / width;
    - `relative_mse`: |W s - t|² / |t|², so that layers and models with states of different size weigh the same;
    - `cosine`: 1 - cos(W s, t). Blind to scale.

    W is the identity where widths agree, else a learnt projection that is trained, clipped and checkpointed with the
    student but never part of it. `layer_map` says for every student layer the teacher layer it answers to (from 0;
    a list, or lists by stack); by default it follows from how the student was made. `layers: last` compares only
    the last student layer. Where there is no padding (images), an example counts as one token: its positions' mean.

    With `pooling` each example's positions become one vector first, its embedding: their `mean`, the `first` or the `last`
    of them (Reimers and Gurevych 2019, arXiv:1908.10084, sec. 3); the mean is then over examples. Models that cut examples
    into other tokens or patches can be compared so, and a cache stores one vector per example and layer.
    """

    needs_stacks = True

    def __init__(
        self,
        *,
        distance: Distance = "relative_mse",
        layers: Literal["all", "last"] = "all",
        layer_map: list[int] | Mapping[str, list[int]] | None = None,
        pooling: Pooling | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.count = "tokens" if pooling is None else "examples"
        self.distance = distance
        self.layers = layers
        self.layer_map = layer_map
        self.projections = nn.ModuleDict()
        self.pairs: tuple[Pair, ...] = ()

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        if teacher is None:
            return ["`hidden` needs a teacher"]
        try:
            pairs = self._pairs(student, teacher, layer_map)
        except CompatibilityError as error:
            return [str(error)]
        both = ((stack, student.positions.get(stack), teacher.positions.get(stack), ours, theirs)
                for stack, ours, theirs in pairs if self.pooling is None)
        apart = (_apart(stack, said[ours + 1], told[theirs + 1]) for stack, said, told, ours, theirs in both
                 if said and told and said[ours + 1] != told[theirs + 1])
        return list(apart)[:1]

    def reads(self, layer_map: LayerMap) -> LayerMap:
        wanted = {stack: tuple(layers) for stack, layers in layer_map.items()}
        if isinstance(self.layer_map, Mapping):
            wanted = {stack: tuple(layers) for stack, layers in self.layer_map.items()}
        elif self.layer_map is not None:
            wanted = dict.fromkeys(layer_map, tuple(self.layer_map))
        return wanted if self.layers == "all" else {stack: layers[-1:] for stack, layers in wanted.items()}

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        if teacher is None:
            raise CompatibilityError("`hidden` needs a teacher")
        self.pairs = self._pairs(student, teacher, layer_map)
        for stack, ours, theirs in self.pairs:
            narrow, wide = student.widths[stack][ours + 1], teacher.widths[stack][theirs + 1]
            if narrow != wide:
                self.projections[_name(stack, ours)] = nn.Linear(narrow, wide, bias=False)

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        sums = [self._sum(stack, ours, student.stacks[stack], theirs, teacher.stacks[stack])
                for stack, ours, theirs in self.pairs]
        return torch.stack(sums).mean()

    def _sum(self, stack: str, layer: int, said: Stack, answered: int, told: Stack) -> Tensor:
        if self.pooling is not None:
            state, target = said.pooled(layer + 1, self.pooling), told.pooled(answered + 1, self.pooling)
            return distance(self._projected(stack, layer, state), target, self.distance).sum()
        state, target = said.hidden_states[layer + 1], told.hidden_states[answered + 1]
        if state.shape[:2] != target.shape[:2]:
            raise CompatibilityError(_apart(stack, state.shape[1], target.shape[1]))
        state = self._projected(stack, layer, state)
        exact = torch.promote_types(state.dtype, torch.float32)
        distances = distance(state.to(exact), target.to(exact), self.distance)
        if said.mask is None:
            return distances.mean(-1).sum()
        return torch.where(said.mask, distances, 0).sum()

    def _projected(self, stack: str, layer: int, state: Tensor) -> Tensor:
        name = _name(stack, layer)
        if name not in self.projections:
            return state
        return projected(state, self.projections[name].get_parameter("weight"))

    def _pairs(self, student: Dims, teacher: Dims, automatic: LayerMap) -> tuple[Pair, ...]:
        wanted = self._wanted(student, automatic)
        pairs = []
        for stack, targets in wanted.items():
            if stack not in student.widths or stack not in teacher.widths:
                raise CompatibilityError(f"`hidden`: got stack {stack!r}; the student has {sorted(student.widths)}, the "
                                         f"teacher {sorted(teacher.widths)}")
            depth, deep = len(student.widths[stack]) - 1, len(teacher.widths[stack]) - 1
            if len(targets) != depth or not all(0 <= target < deep for target in targets):
                raise CompatibilityError(
                    f"`hidden`: layer_map of stack {stack!r}: got {list(targets)}; expected {depth} numbers (one per "
                    f"student layer) from 0 to {deep - 1}")
            chosen = range(depth) if self.layers == "all" else [depth - 1]
            pairs += [(stack, layer, targets[layer]) for layer in chosen]
        if not pairs:
            raise CompatibilityError("`hidden`: it is not known which teacher layer each student layer answers to (no "
                                     "common layer stacks were found); give `layer_map`, or leave `hidden` out")
        return tuple(pairs)

    def _wanted(self, student: Dims, automatic: LayerMap) -> Mapping[str, tuple[int, ...]]:
        if self.layer_map is None:
            return automatic
        if isinstance(self.layer_map, Mapping):
            return {stack: tuple(targets) for stack, targets in self.layer_map.items()}
        if len(student.widths) != 1:
            raise CompatibilityError(f"`hidden`: the student has the stacks {sorted(student.widths)}: give `layer_map` by "
                                     "stack, {name: [..]}")
        return {next(iter(student.widths)): tuple(self.layer_map)}


def _apart(stack: str, ours: int, theirs: int) -> str:
    return (f"`hidden`: in stack {stack!r} the student has {ours} positions, the teacher {theirs}: hidden states compare "
            "position by position. Give both the same tokenizer or the same image and patch size, compare one vector per "
            "example (`pooling: mean`), or leave `hidden` out")


def _name(stack: str, layer: int) -> str:
    return f"{stack}_{layer}".replace(".", "_")
