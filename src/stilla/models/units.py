"""Units within a model's layers, neurons and heads: which slices of which tensors can only be cut together.

They are found with a copy that has random weights (`probe.py`). While some slices of one matrix are zero, weights that then
get no gradient at all have no other way to the outputs, so they go with these slices. Which of them goes with which slice
follows from a few runs: in run b the slices are zero whose number has bit b. Where heads are fused into one matrix, or
halves of a gated block lie in another, the gradients say which rows are whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from stilla.models.configs import Axis
from stilla.models.members import NOBODYS, UNKNOWN, Member, Units
from stilla.models.probe import Probe


def inner_units(
    probe: Probe, axes: Iterable[Axis], counts: Sequence[int] | None = None
) -> tuple[tuple[Units, ...], frozenset[Axis]]:
    """The units within layers that these axes consist of, and the axes that are in none.

    counts: how many units an axis may hold, most likely of neighbouring indices (heads); by default as many as indices.
    Matrices that stand at the same place of their layers are looked at together.
    """
    left = {axis for axis in axes if axis[0] in probe.weights}
    found: list[Units] = []
    for sinks, silenced in _ranked(probe, left, anywhere=counts is None) if left else ():
        reached = silenced & left
        if not left.issuperset(sinks) or not any(probe.weights[name].dim() > 1 for name, _ in reached):
            continue
        units = next((units for count in _counts(probe, sinks, counts)
                      if (units := _units_of(probe, sinks, reached, count))), ())
        found += units
        left -= {(member.tensor, member.axis) for one in units for member in one.members}
    return tuple(found), frozenset(left)


# --- how it is seen what goes together ---


def _ranked(probe: Probe, axes: set[Axis], anywhere: bool) -> list[tuple[list[Axis], set[Axis]]]:
    """Axes of matrices at one place of their layers, with the axes that fall silent without them; the most first."""
    places: dict[tuple[str, int], list[Axis]] = {}
    for name, axis in sorted(axes):
        if probe.weights[name].dim() > 1 and (anywhere or probe.layers.holds(name)):
            places.setdefault((probe.layers.place(name), axis), []).append((name, axis))
    silent_anyway = probe.silent(axes, {})
    ranked = []
    for sinks in places.values():
        whole = {sink: torch.ones(_size(probe, sink), dtype=torch.bool) for sink in sinks}
        silent = probe.silent(axes - set(sinks), whole)
        reached = {axis for axis, mask in silent.items() if mask.all() and not silent_anyway[axis].all()}
        reached |= {axis for axis, mask in silent.items() if mask.all() and _beside(probe, axis, reached)}
        ranked.append((sinks, reached))
    return sorted(ranked, key=lambda one: -len(one[1]))


def _counts(probe: Probe, sinks: Sequence[Axis], counts: Sequence[int] | None) -> list[int]:
    """The numbers of units that may be in these sinks, largest first; those of one place are alike."""
    sizes = {_size(probe, sink) for sink in sinks}
    if counts is None:
        return list(sizes) if len(sizes) == 1 else []
    return sorted({count for count in counts if count > 1 and all(size % count == 0 for size in sizes)}, reverse=True)


def _units_of(probe: Probe, sinks: Sequence[Axis], reached: set[Axis], count: int) -> tuple[Units, ...]:
    """A group of units per layer, or one for all layers where they share something; none where a weight is nobody's."""
    unit = {sink: torch.arange(_size(probe, sink)) // (_size(probe, sink) // count) for sink in sinks}
    owner = {axis: _completed(each, count) for axis, each in _owners(probe, reached, unit, count).items()}
    # with all of a matrix more falls silent than with a part of it: what is read before it, and what is read by that
    reached = {axis for axis in reached if not bool((owner[axis] == NOBODYS).all())}
    if not reached or any(not _is_even(owner[axis], count) for axis in reached):
        return ()
    groups = _by_sink(probe, sinks, reached, unit)
    if any(not any(probe.weights[name].dim() > 1 for name, _ in others) for _, others in groups):
        return ()
    return tuple(_group(count, through, unit, others, owner) for through, others in groups)


def _by_sink(
    probe: Probe, sinks: Sequence[Axis], reached: set[Axis], unit: Mapping[Axis, Int[Tensor, "index"]]
) -> list[tuple[Sequence[Axis], list[Axis]]]:
    """Which axes reach the outputs through which sink; all through all where layers share one, and so have to keep the same
    (T5's bias of relative positions)."""
    everything = [(sinks, sorted(reached))]
    if len(sinks) == 1:
        return everything
    number = {sink: torch.full_like(unit[sink], index) for index, sink in enumerate(sinks)}
    whose = _owners(probe, reached, number, len(sinks))
    owner = {axis: _one_owner(each) for axis, each in whose.items()}
    if None in owner.values():
        return everything
    return [([sink], sorted(axis for axis in reached if owner[axis] == index)) for index, sink in enumerate(sinks)]


def _one_owner(whose: Int[Tensor, "index"]) -> int | None:
    """Whose all slices are of which it was seen, if these are most."""
    seen = whose[whose != UNKNOWN]
    alone = 2 * len(seen) >= len(whose) and int(seen.min()) >= 0 and bool(seen.min() == seen.max())
    return int(seen[0]) if alone else None


def _group(
    count: int, sinks: Sequence[Axis], unit: Mapping[Axis, Tensor], others: Sequence[Axis], owner: Mapping[Axis, Tensor]
) -> Units:
    through = tuple(Member(*sink, unit[sink]) for sink in sinks)
    return Units(sinks[0][0], count, (*through, *(Member(*axis, owner[axis]) for axis in others)), through)


def _owners(
    probe: Probe, axes: Iterable[Axis], unit: Mapping[Axis, Int[Tensor, "index"]], count: int
) -> dict[Axis, Int[Tensor, "index"]]:
    """For each slice the unit without whose sinks it falls silent, and that alone; bit by bit of the unit's number."""
    axes = list(axes)
    number = {axis: torch.zeros(_size(probe, axis), dtype=torch.int64) for axis in axes}
    nobodys = {axis: torch.ones(_size(probe, axis), dtype=torch.bool) for axis in axes}
    seen = {axis: torch.ones(_size(probe, axis), dtype=torch.bool) for axis in axes}
    highest = (count - 1).bit_length() - 1
    for bit in (highest, *range(highest)):  # large and small parts at once tell soonest that a count is wrong
        ones, zeros = ({sink: (units >> bit & 1) == wanted for sink, units in unit.items()} for wanted in (1, 0))
        without_ones, without_zeros = probe.silent(axes, ones), probe.silent(axes, zeros)
        for axis in axes:
            one, zero = without_ones[axis], without_zeros[axis]
            number[axis] += one.long() << bit
            seen[axis] &= one ^ zero  # silent in both: without any part in the outputs
            nobodys[axis] &= ~one & ~zero
        unclear = (2 * int((seen[axis] | nobodys[axis]).sum()) < len(seen[axis]) for axis in axes
                   if not _beside(probe, axis, axes))
        if any(unclear):
            return dict.fromkeys(axes, torch.tensor([UNKNOWN]))  # it will not become clearer
    owner = {axis: torch.where(seen[axis] & (number[axis] < count), number[axis],
                               torch.where(nobodys[axis], NOBODYS, UNKNOWN)) for axis in axes}
    return {axis: max((owner[one] for one in _beside(probe, axis, axes) or [axis]), key=lambda units: int((units >= 0).sum()))
            for axis in axes}


def _completed(owner: Int[Tensor, "index"], count: int) -> Int[Tensor, "index"]:
    """The same with what was not seen in the pattern of the others, if these are most: some neurons are dead (ReLU)."""
    size, seen = len(owner), owner != UNKNOWN
    if size % count or 2 * int(seen.sum()) < size:
        return owner
    patterns = (torch.arange(size) % count, torch.arange(size) // (size // count))
    return next((one for one in patterns if torch.equal(one[seen], owner[seen])), owner)


def _beside(probe: Probe, axis: Axis, among: Iterable[Axis]) -> list[Axis]:
    """The axes of the matrix in the same module that a vector may be the bias of.

    A bias of keys has no part in any output, as all keys get the same: it has the gradient of rounding, or none.
    """
    name, _ = axis
    if probe.weights[name].dim() > 1:
        return []
    module = name.rpartition(".")[0]
    return sorted(other for other in among if other[0].rpartition(".")[0] == module
                  and probe.weights[other[0]].dim() > 1 and _size(probe, other) == _size(probe, axis))


def _is_even(owner: Int[Tensor, "index"], count: int) -> bool:
    """Whether it is known whose every slice is, and each unit has as many."""
    if bool((owner == UNKNOWN).any()):
        return False
    sizes = torch.bincount(owner[owner >= 0], minlength=count)
    return bool(sizes.min() > 0) and bool(sizes.min() == sizes.max())


def _size(probe: Probe, axis: Axis) -> int:
    name, dimension = axis
    return int(probe.weights[name].shape[dimension])
