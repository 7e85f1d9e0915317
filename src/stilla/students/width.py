"""A student whose layers are narrower than the teacher's: which sizes its config can express, and which units it keeps.

    {ffn: 0.5, heads: 0.5, hidden: 0.5}

A model is cut in rounds. In each, some of what is to go goes: what matters least (`importance.py`) of what is left. Then that
is measured anew, as a neuron may matter more once its likes are gone. Every layer keeps as many units, as a config says one
number for all; which, is its own choice. A hidden state has the same numbers in all layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_of
from stilla.models.configs import Axis, ConfigPath, Shapes
from stilla.models.members import NOBODYS, Units
from stilla.models.probe import close
from stilla.models.slices import Slices, sliced, slices_of
from stilla.models.widths import find_widths
from stilla.recipe import Width
from stilla.students.sizes import KINDS, Shares, changes, on_the_way, targets

Score = Callable[[nn.Module, Sequence[Units]], Mapping[str, Float[Tensor, "unit"]]]


@dataclass(frozen=True)
class Cut:
    """changes: of the config. slices: of the weights, what stays."""

    changes: Mapping[ConfigPath, object]
    slices: Slices

    def of(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model cut so."""
        return sliced(model, self.changes, self.slices)

    def save(self, path: Path) -> None:
        tensors = {f"{name} {axis}": indices for name, axes in self.slices.items() for axis, indices in axes.items()}
        changes = [[list(where), value] for where, value in self.changes.items()]
        save_file({name: one.contiguous() for name, one in tensors.items()}, path, {"changes": json.dumps(changes)})

    @classmethod
    def load(cls, path: Path) -> Cut:
        slices: Slices = {}
        with safe_open(path, "pt") as file:
            for key in list(file.keys()):
                name, _, axis = key.rpartition(" ")
                slices.setdefault(name, {})[int(axis)] = file.get_tensor(key)
            changes = json.loads(file.metadata()["changes"])
        return cls({tuple(where): value for where, value in changes}, slices)


def by_width(model: PreTrainedModel, spec: Width, score: Score, inputs: Mapping[str, Tensor] | None = None) -> Cut:
    """What of the model is left, and with which config.

    score: what each unit of a model matters; called once a round, with what is left.

    Raises:
        CompatibilityError: as for `Plan`.
    """
    return Plan(model, spec, inputs).cut(score)


def first_units(model: nn.Module, units: Sequence[Units]) -> dict[str, Float[Tensor, "unit"]]:
    """A score for a model of the right size, whatever it computes."""
    return {one.name: -torch.arange(one.count, dtype=torch.float64) for one in units}


class Plan:
    """What a specification means for one model.

    Raises:
        CompatibilityError: no config can express it, or it was not seen which weights go together; all problems at once.
    """

    def __init__(self, model: PreTrainedModel, spec: Width, inputs: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.rounds = spec.rounds
        asked = Shares(spec.ffn, spec.heads, spec.hidden)
        self.widths = find_widths(model, [kind for kind in KINDS if asked.of(kind) != 1], inputs)
        self.shapes = Shapes(model)
        self.targets = targets(self.widths, asked)
        self.units = self.widths.units(target.knob for target in self.targets)
        self._refuse_what_computes_otherwise()

    def cut(self, score: Score) -> Cut:
        """score: as for `by_width`."""
        kept = {one.name: torch.arange(one.count) for one in self.units}
        model = self.model
        cut = Cut({}, {})
        for said, counts in self._rounds():
            left = [one.only(kept[one.name]) for one in self.units]
            scores = score(model, left)
            kept = {one.name: kept[one.name][best(scores[one.name], counts[one.name], one.pools)] for one in left}
            cut = Cut(said, slices_of(self.units, kept))
            model = cut.of(self.model)
        return cut

    def _rounds(self) -> Iterator[tuple[Mapping[ConfigPath, object], dict[str, int]]]:
        """The config of each, and how many units every group has then; only what the class takes, and where any goes."""
        last = changes(self.widths, self.targets)
        goal = _counts(self.units, self._sizes(self.shapes, last))
        left = {one.name: one.count for one in self.units}
        for number in range(1, self.rounds):
            said = changes(self.widths, on_the_way(self.widths, self.targets, number / self.rounds))
            sizes = self.shapes.changed(said)
            counts = left if sizes is None else _counts(self.units, sizes)
            if counts != left and all(goal[name] <= count <= left[name] for name, count in counts.items()):
                yield said, counts
                left = counts
        yield last, goal

    def _sizes(self, shapes: Shapes, said: Mapping[ConfigPath, object]) -> Mapping[Axis, tuple[int, int]]:
        sizes = shapes.changed(said)
        if sizes is None:
            raise CompatibilityError(f"student.width: {type(self.model).__name__} with {_in_words(said)} cannot be built, or "
                                     "has other weights than the teacher. Ask for another width")
        return sizes

    def _refuse_what_computes_otherwise(self) -> None:
        """With units cut off a model has to say what it says while these are silent; of the hidden state, to run at all."""
        probe = self.widths.probe
        for kind in KINDS:
            some = [target for target in self.targets if target.knob.kind == kind]
            if not some:
                continue
            some = [*self.targets] if kind == "hidden" else some  # its width has to fit the number of heads
            units = [one for target in some for one in target.knob.units]
            said = changes(self.widths, some)
            counts = _counts(units, self._sizes(self.widths.shapes, said))
            kept = {one.name: best(torch.arange(one.count).double(), counts[one.name], one.pools) for one in units}
            try:
                answer = probe.answer(sliced(probe.model, said, slices_of(units, kept)))
                same = kind == "hidden" or close(answer, probe.answer_without(units, kept))
            except CompatibilityError as error:
                raise CompatibilityError(f"student.width.{kind}: {error}. Leave {kind} out") from error
            except Exception as error:  # whatever a class says when its shapes do not fit
                raise CompatibilityError(f"student.width.{kind}: {type(self.model).__name__} does not run with "
                                         f"{_in_words(said)}: {error}. Leave {kind} out") from error
            if not same:
                raise CompatibilityError(
                    f"student.width.{kind}: {type(self.model).__name__} with {_in_words(said)} computes otherwise than with "
                    f"the same weights and the others silent: what is left would not be what was learnt. Leave {kind} out")


def _counts(units: Iterable[Units], sizes: Mapping[Axis, tuple[int, int]]) -> dict[str, int]:
    """How many of its units each group keeps where axes have these sizes, old and new."""
    counts = {}
    for one in units:
        member = one.members[0]
        always = int((member.unit == NOBODYS).sum())
        size = sizes.get((member.tensor, member.axis), (len(member.unit),) * 2)[1]
        counts[one.name] = (size - always) * one.count // (len(member.unit) - always)
    return counts


def best(scores: Float[Tensor, "unit"], count: int, pools: int) -> Int[Tensor, "kept"]:
    """The units with the highest scores, as many of each pool, in their order; of equals the first."""
    by_pool = scores.view(pools, -1)
    order = by_pool.argsort(dim=1, descending=True, stable=True)[:, :count // pools]
    first = torch.arange(pools)[:, None] * by_pool.shape[1]
    return (order + first).flatten().sort().values


def _in_words(said: Mapping[ConfigPath, object]) -> str:
    return all_of([f"{'.'.join(path)} {value}" for path, value in said.items()])
