"""Feature maps of pictures, also between convolutions and transformers, whose maps have other grids and widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError, one_of
from stilla.objectives._distances import Distance, distance, projected
from stilla.objectives.base import FeatureObjective, LayerMap
from stilla.signals import Dims, Grid, Signals, Stack

Pair = tuple[int, int]
"""Student layer, teacher layer, counted through all stages."""


class Maps(FeatureObjective):
    """How far the student's feature maps are from the teacher's, place by place on the student's grid.

    A map is what leaves a layer: (channels, height, width) of a convolution, or the patches of a transformer without the
    tokens before them that show no place (class, distillation, registers). The teacher's is brought to the student's grid:
    where that is coarser by the mean of what each place covers, where it is finer between places (bilinear); on the same grid
    it is as it was. Mean over the compared pairs of the mean over places of

    - `cosine`: 1 - cos(W s, t); `mse`: |W s - t|² / width; `relative_mse`: |W s - t|² / |t|²; W a learnt projection (a
      convolution of 1 x 1) where widths differ, as of `hidden` (FitNets, Romero et al. 2015, arXiv:1412.6550);

    or, with `attention`, the squared distance of where both look: |a(s) / |a(s)| - a(t) / |a(t)||², a the sum of squares over
    the channels of each place (Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 2). It needs no projection.

    `pairs`: `last`, the last layers of both; `all`, every student layer with the one that it answers to; or [[student layer,
    teacher layer], ...] from 0, counted through all stages.
    """

    needs_stacks = True
    needs_grids = True
    count = "examples"

    def __init__(
        self,
        *,
        distance: Literal["cosine", "mse", "relative_mse", "attention"] = "cosine",
        pairs: Literal["last", "all"] | list[list[int]] = "last",
    ) -> None:
        super().__init__()
        self.distance = distance
        self.pairs = pairs
        self.chosen: tuple[Pair, ...] = ()
        self.stacks: tuple[str, str] = ("", "")
        self.projections = nn.ModuleDict()

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        if teacher is None:
            return ["`maps` needs a teacher"]
        try:
            self._chosen(student, teacher, layer_map)
        except CompatibilityError as error:
            return [str(error)]
        return []

    def misfits(self, *, aligned: bool, packed: bool, framed: bool = True) -> list[str]:
        """Grids may differ, and so may sizes of the pictures; not what of them is seen."""
        if framed:
            return []
        return ["compares what is seen at each place, and the two models see different parts of a picture (an image "
                "processor cuts its borders off), or other pictures (teacher.data). Give both the same crop (do_center_crop, "
                "crop_pct), at whatever resolution"]

    def reads(self, layer_map: LayerMap) -> LayerMap:
        """Nothing that a cache could hold: it knows no grids."""
        return {}

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        if teacher is None:
            raise CompatibilityError("`maps` needs a teacher")
        self.stacks, self.chosen = self._chosen(student, teacher, layer_map)
        for ours, theirs in self.chosen if self.distance != "attention" else ():
            narrow, wide = student.widths[self.stacks[0]][ours + 1], teacher.widths[self.stacks[1]][theirs + 1]
            if narrow != wide:
                self.projections[f"{ours}_{theirs}"] = nn.Linear(narrow, wide, bias=False)

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        said, told = student.stacks[self.stacks[0]], teacher.stacks[self.stacks[1]]
        return torch.stack([self._sum(said, ours, told, theirs) for ours, theirs in self.chosen]).mean()

    def _sum(self, said: Stack, ours: int, told: Stack, theirs: int) -> Tensor:
        state, target = feature_map(said, ours + 1, "student"), feature_map(told, theirs + 1, "teacher")
        grid = state.shape[2:]
        if self.distance == "attention":
            _refuse_single_places({"student": (ours, state), "teacher": (theirs, target)})
            seen, wanted = attention(state), resized(attention(target), grid)
            return (_unit(seen) - _unit(wanted)).square().sum()
        kind: Distance = self.distance
        state, target = (one.flatten(2).transpose(1, 2) for one in (state, resized(target, grid)))
        name = f"{ours}_{theirs}"
        if name in self.projections:
            state = projected(state, self.projections[name].get_parameter("weight"))
        return distance(state, target, kind).mean(1).sum()

    def _chosen(self, student: Dims, teacher: Dims, layer_map: LayerMap) -> tuple[tuple[str, str], tuple[Pair, ...]]:
        names = _stack_of(student, "student", layer_map), _stack_of(teacher, "teacher", layer_map)
        depth, deep = len(student.widths[names[0]]) - 1, len(teacher.widths[names[1]]) - 1
        if self.pairs == "last":
            return names, ((depth - 1, deep - 1),)
        if self.pairs == "all":
            known = layer_map.get(names[0]) if names[0] == names[1] else None
            # evenly spaced between other kinds of layers: the last answers to the last
            evenly = tuple(-(-(layer + 1) * deep // depth) - 1 for layer in range(depth))
            return names, tuple(enumerate(known if known is not None else evenly))
        wrong = [one for one in self.pairs if len(one) != 2 or not (0 <= one[0] < depth and 0 <= one[1] < deep)]
        if wrong or not self.pairs:
            raise CompatibilityError(f"`maps`: pairs: got {wrong[0] if wrong else []}; expected [student layer, teacher "
                                     f"layer] from 0, up to {depth - 1} and {deep - 1}")
        return names, tuple((ours, theirs) for ours, theirs in self.pairs)


def feature_map(stack: Stack, index: int, whose: str) -> Float[Tensor, "batch channels height width"]:
    """`hidden_states[index]` as a map, in at least float32.

    Raises:
        CompatibilityError: nobody knows where its positions lie.
    """
    grid: Grid | None = stack.grids[index] if stack.grids else None
    if grid is None:
        raise CompatibilityError(f"`maps`: it is not known where the positions of the {whose}'s layer {index - 1} lie in the "
                                 "picture. Use `hidden` with `pooling: mean`, which needs no places")
    state = stack.hidden_states[index]
    state = state.to(torch.promote_types(state.dtype, torch.float32))
    found: Tensor = state[:, grid.prefix :].transpose(1, 2).unflatten(2, (grid.height, grid.width))
    return found


def attention(state: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
    """How much happens at each place: the sum of squares over the channels."""
    return state.square().sum(1, keepdim=True)


def resized(
    state: Float[Tensor, "batch channels rows columns"], grid: tuple[int, int] | torch.Size
) -> Float[Tensor, "batch channels height width"]:
    """On another grid: means where it is coarser, bilinear where it is finer, each axis by itself; unchanged on its own."""
    rows, columns = state.shape[2:]
    coarser = min(grid[0], rows), min(grid[1], columns)
    if coarser != (rows, columns):
        state = F.adaptive_avg_pool2d(state, coarser)
    if coarser != tuple(grid):
        state = F.interpolate(state, size=tuple(grid), mode="bilinear", align_corners=False)
    return state


def _refuse_single_places(maps: Mapping[str, tuple[int, Tensor]]) -> None:
    """Raises:
        CompatibilityError: all of a picture is one place, so that every map looks there and nothing is learnt.
    """
    for whose, (layer, state) in maps.items():
        if state.shape[2:].numel() == 1:
            raise CompatibilityError(
                f"`maps`: distance: attention compares where in a picture both look, and the {whose}'s layer {layer} has a "
                "single place (1 x 1), so that there is nothing to compare. Name earlier layers in `pairs`, let the models "
                "see larger pictures, or use distance: cosine")


def _unit(seen: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch places"]:
    found: Tensor = F.normalize(seen.flatten(1), dim=1, eps=torch.finfo(seen.dtype).tiny)
    return found


def _stack_of(dims: Dims, whose: str, layer_map: LayerMap) -> str:
    """Of whose layers the maps are: the only stack, or the only one that both have."""
    for names in (list(dims.widths), [name for name in dims.widths if name in layer_map]):
        if len(names) == 1:
            return names[0]
    got = one_of(sorted(dims.widths)) if dims.widths else "none"
    raise CompatibilityError(f"`maps`: expected one stack of layers in the {whose}, got {got}")
