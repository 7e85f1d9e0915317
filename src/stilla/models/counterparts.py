"""Which weights of a student answer to which of its teacher's: of one name and shape, layers by where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_of
from stilla.models.entry import entry_of
from stilla.models.parts import chosen, layer_paths
from stilla.models.slices import Slices
from stilla.models.stacks import find_stacks


@dataclass(frozen=True)
class Counterpart:
    """name: of the student's weight. theirs: the teacher's, as it lies there. kept: by axis, which of it the student has."""

    name: str
    theirs: Tensor
    kept: Mapping[int, Int[Tensor, "index"]] = field(default_factory=dict)

    def value(self, like: Tensor) -> Tensor:
        """What the student's weight answers to, in its precision and place."""
        found = self.theirs.detach()
        for axis, indices in self.kept.items():
            found = found.index_select(axis, indices.to(found.device))
        return found.to(like)


@dataclass(frozen=True)
class Counterparts:
    """found: in the student's order. lacking: of what was asked for, those that the teacher has not, or in another shape."""

    found: tuple[Counterpart, ...]
    lacking: tuple[str, ...]

    def described(self, student: nn.Module) -> str:
        """How much of the student answers to its teacher, in words."""
        sizes = {name: one.numel() for name, one in student.named_parameters()}
        ours = sum(sizes[one.name] for one in self.found)
        without = f"; without a counterpart: {_some(self.lacking)}" if self.lacking else ""
        return f"{len(self.found)} of its tensors, {ours / sum(sizes.values()):.0%} of its weights{without}"


def counterparts(
    student: nn.Module, teacher: nn.Module, layers: Mapping[str, Sequence[int]], slices: Slices | None = None, *,
    parts: Sequence[str] | None = None, place: str = "parts", tokens: bool = True, frozen: bool = False,
) -> Counterparts:
    """The student's trained weights and those of the teacher that they answer to.

    Args:
        layers: by stack, for every student layer the teacher's that it came from. Other layers answer to those of their name.
        slices: of the tensors of a narrower student, which indices of the teacher's it has.
        parts: which of the student's (`models/parts.py`); None: all.
        place: of `parts`, for errors.
        tokens: whether both number their tokens alike; if not, tables with a row for each answer to nothing.
        frozen: those that are not trained, too.

    Raises:
        CompatibilityError: a part that matches nothing; nothing that answers to anything.
    """
    ours, theirs = dict(student.named_parameters()), dict(teacher.named_parameters(remove_duplicate=False))
    trained = [name for name in chosen(student, parts, place) if frozen or ours[name].requires_grad]
    names = Names(student, teacher, layers)
    alien = set[str]() if tokens else _of_tokens(student)
    found, lacking = list[Counterpart](), list[str]()
    for name in trained:
        one = theirs.get(names.teachers(name))
        made = None if one is None or name in alien else Counterpart(name, one, (slices or {}).get(name, {}))
        if made is not None and _shape(made) == ours[name].shape and made.theirs.is_floating_point():
            found.append(made)
        else:
            lacking.append(name)
    if not found:
        what = "no weight of the student" if parts is None else f"nothing of {all_of(list(parts))}"
        raise CompatibilityError(
            f"{place}: {what} has a counterpart in {type(teacher).__name__}: {_why(trained, names, theirs, ours)}. Use a "
            "student of the teacher's architecture and width, or cut from it (`layers`, `width`)")
    return Counterparts(tuple(found), tuple(lacking))


def _why(trained: Sequence[str], names: Names, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    if not trained:
        return "none of it is trained"
    name = trained[0]
    other = theirs.get(names.teachers(name))
    if other is None:
        return f"it has no `{names.teachers(name)}`"
    if other.shape == ours[name].shape:
        return f"their tokens are others, or `{name}` is quantised"
    return f"`{name}` has the shape {tuple(ours[name].shape)}, not {tuple(other.shape)}"


class Names:
    """What the teacher calls the student's weights."""

    def __init__(self, student: nn.Module, teacher: nn.Module, layers: Mapping[str, Sequence[int]]) -> None:
        self._moved: dict[str, str] = {}
        there = {stack.name: layer_paths(stack) for stack in find_stacks(teacher)} if layers else {}
        for stack in find_stacks(student) if layers else ():
            if stack.name in layers and stack.name in there:
                paths = [there[stack.name][index] for index in layers[stack.name]]
                self._moved |= dict(zip(layer_paths(stack), paths, strict=True))

    def teachers(self, name: str) -> str:
        for layer, path in self._moved.items():
            if name.startswith(f"{layer}."):
                return path + name.removeprefix(layer)
        return name


def _shape(one: Counterpart) -> torch.Size:
    return torch.Size(len(one.kept[axis]) if axis in one.kept else size for axis, size in enumerate(one.theirs.shape))


def _of_tokens(model: nn.Module) -> set[str]:
    """Tables with a row for each token: what tokens are embedded by, and the head over them."""
    if not isinstance(model, PreTrainedModel):
        return set()
    tables = [module for module in (entry_of(model), model.get_output_embeddings())
              if isinstance(module, nn.Module)]
    rows = {id(one) for module in tables for one in module.parameters()}
    return {name for name, one in model.named_parameters() if id(one) in rows}


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{', '.join(listed[:3])}{f' and {len(listed) - 3} more' if len(listed) > 3 else ''}"
