"""A student of some of its teacher's layers: 3, {keep: [0, 5, 11]}, {encoder: 6}, {depths: [1, 1, 3, 1]}."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeGuard

from torch import nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_at_once, did_you_mean
from stilla.models.configs import edited_config, skeleton
from stilla.models.depths import Changes, Kept, keeping
from stilla.models.stacks import LayerStack, find_stacks
from stilla.students.copying import copy_weights
from stilla.students.kinds import misfits, nearest_fit
from stilla.students.student import LayerMap, Student
from stilla.students.trying import failure

Layers = int | Mapping[str, Any] | None
"""Which of a teacher's, as a recipe says it; None: all, and nothing is said of them."""
_PARTS = (1, 3 / 4, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 12)
_WAY_OUT = "Give the student as `student: {model: ...}`, or build it fresh with `student: {config: ...}`."


def by_layers(teacher: nn.Module, layers: int | Mapping[str, Any]) -> Student:
    """A student with some of the teacher's layers: it computes what the teacher would without the others.

    layers:
        3: of the one stack, or of both of an encoder-decoder, three layers as far apart as possible, the
            first and the last among them. 1 keeps the first: it alone has learnt to read the embeddings (as
            in DistilBART, Shleifer and Rush 2020, arXiv:2010.13002).
        {"keep": [0, 5, 11]}: these, counted from 0.
        {"encoder": 6, "decoder": [0, 11]}: by stack, how many or which; a stack not named stays whole.
        {"depths": [1, 1, 3, 1]}: of a model in stages (Swin, ResNet), how many of each, spaced within it.

    Where a number is given and position decides how a layer computes (Swin shifts every second window), the
    nearest layers that fit are taken. The layer map says for each layer the one it was copied from, except
    for the last (of each stage): it answers to the teacher's last, because what follows was trained on that
    one's output.

    The teacher is not changed. The student shares no tensor with it, is in eval mode, on the teacher's
    device, and in float32 where the teacher is in half precision.

    Raises:
        CompatibilityError: these are not layers of this model, or cutting them would invent or lose weights,
            or change what the kept layers compute, or leave what cannot be run.
    """
    stacks = _stacks(teacher)
    student, kept = _fitted(teacher, stacks, layers)
    assert isinstance(teacher, PreTrainedModel)  # only such a model has stacks
    copy_weights(student, teacher, kept)
    _refuse_what_cannot_be_run(student.eval(), teacher)
    return _finished(student, teacher, {stack.name: _answers(stack, kept[stack]) for stack in stacks},
                     {stack.name: _copied(stack, kept[stack]) for stack in stacks})


def _fitted(
    teacher: nn.Module, stacks: Sequence[LayerStack], layers: int | Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[LayerStack, Kept]]:
    """The student without weights, and its layers: at places where each computes what it did."""
    assert isinstance(teacher, PreTrainedModel)
    name = type(teacher).__name__
    wanted = _wanted(stacks, layers, name)
    kept = {stack: wanted.get(stack.name, _whole(stack)) for stack in stacks}
    whole = skeleton(teacher, edited_config(teacher.config, {}))
    student = _cut(teacher, kept)
    if misfits(student, whole, kept):
        free = [stack for stack in stacks if stack.staged or not _names_layers(layers, stack)]
        kept |= {stack: nearest_fit(student, whole, stack, kept[stack]) for stack in free}
        student = _cut(teacher, kept)
    for misfit in misfits(student, whole, kept):
        raise CompatibilityError(
            f"layer {misfit.index} of {name}'s `{misfit.path}` would compute something else as layer "
            f"{misfit.position} of the student: {misfit.difference}, and the config cannot say otherwise. "
            f"Keep a layer of the same kind at that place. {_WAY_OUT}"
        )
    return student, kept


def _refuse_what_cannot_be_run(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    if (error := failure(student, teacher)) is not None:
        raise CompatibilityError(f"{type(teacher).__name__} cannot be run with these layers alone: {error}. Keep those that "
                                 f"its head reads. {_WAY_OUT}") from error


def with_layers(teacher: nn.Module, layers: Layers) -> Student:
    """`by_layers`, or `entire` where nothing is said of layers."""
    return entire(teacher) if layers is None else by_layers(teacher, layers)


def depths(teacher: nn.Module) -> list[Layers]:
    """Ways to keep layers, as a recipe says them, from all to one: of one stack every number of layers; of stages or of
    several stacks, parts of each that are as large as a half, a third, ...; None, all, where there is no stack to cut."""
    stacks = find_stacks(_transformer(teacher))
    if not stacks:
        return [None]
    if len(stacks) == 1 and not stacks[0].staged:
        return list(range(stacks[0].depth, 0, -1))
    if len(stacks) == 1:
        parts = [[max(1, round(depth * part)) for depth in stacks[0].depths] for part in _PARTS]
        return [{"depths": part} for number, part in enumerate(parts) if part not in parts[:number]]
    plain = [stack for stack in stacks if not stack.staged]
    names = [stack.name for stack in plain]
    each = [sorted({max(1, round(stack.depth * part)) for part in _PARTS}, reverse=True) for stack in plain]
    return [dict(zip(names, numbers, strict=True)) for numbers in product(*each)]


def outline(teacher: nn.Module, layers: Layers) -> PreTrainedModel:
    """The student of `with_layers` without weights: its config, names and shapes.

    Raises:
        CompatibilityError: as for `by_layers`, as far as it shows without weights.
    """
    if layers is None:
        return _cut(_transformer(teacher), {})
    student, _ = _fitted(teacher, _stacks(teacher), layers)
    assert isinstance(teacher, PreTrainedModel)
    _refuse_what_cannot_be_run(student.eval(), skeleton(teacher, edited_config(teacher.config, {})).eval())
    return student


def entire(teacher: nn.Module) -> Student:
    """A student with all of the teacher's layers: another model that computes the same.

    Raises:
        CompatibilityError: not a Hugging Face model, or one that a config and its weights do not make again.
    """
    stacks = find_stacks(_transformer(teacher))
    assert isinstance(teacher, PreTrainedModel)
    student = _cut(teacher, {})
    copy_weights(student, teacher, {stack: _whole(stack) for stack in stacks})
    whole = {stack.name: tuple(range(stack.depth)) for stack in stacks}
    return _finished(student, teacher, whole, whole)


def spaced(n: int, depth: int) -> tuple[int, ...]:
    """n of `depth` layers, as far apart as possible, the first and the last among them; n = 1: the first."""
    if n == 1:
        return (0,)
    gaps = n - 1  # position * (depth - 1) / gaps in whole numbers, halves rounded down
    return tuple(-(-(2 * position * (depth - 1) - gaps) // (2 * gaps)) for position in range(n))


def _finished(
    student: PreTrainedModel, teacher: PreTrainedModel, layer_map: LayerMap, copied: LayerMap
) -> Student:
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    student.config.dtype = student.dtype
    return Student(student.eval(), layer_map, copied)


def _transformer(teacher: nn.Module) -> PreTrainedModel:
    if not isinstance(teacher, PreTrainedModel):
        raise CompatibilityError(
            f"{type(teacher).__name__} is not a Hugging Face model: only those can be cut by layers. Give the student as "
            "`student: {model: ...}`."
        )
    return teacher


def _stacks(teacher: nn.Module) -> tuple[LayerStack, ...]:
    stacks = find_stacks(_transformer(teacher))
    if not stacks:
        raise CompatibilityError(f"{without_a_stack(teacher)} {_WAY_OUT}")
    return stacks


def without_a_stack(teacher: nn.Module) -> str:
    """Why no layers of it can be cut, in words."""
    return (f"{type(teacher).__name__} has no stack of layers to cut: no number in its config adds one layer to one list. "
            "Its layers share their weights (ALBERT), lie in parallel lists (XLM), or are fixed by its class.")


def _cut(teacher: PreTrainedModel, kept: Mapping[LayerStack, Kept]) -> PreTrainedModel:
    """The student without weights."""
    changes: Changes = {}
    for stack, indices in kept.items():
        if indices != _whole(stack):
            changes |= keeping(teacher.config, stack, indices)
    try:
        return skeleton(teacher, edited_config(teacher.config, changes))
    except Exception as error:  # each class refuses a config in its own way
        raise CompatibilityError(
            f"{type(teacher).__name__} cannot be built with these layers: {error}. Keep others. {_WAY_OUT}"
        ) from error


def _wanted(stacks: Sequence[LayerStack], layers: object, model: str) -> dict[str, Kept]:
    """By stack name, the layers to keep."""
    asked = _by_name(stacks, layers, model)
    kept: dict[str, Kept] = {}
    problems: list[str] = []
    for stack in (stack for stack in stacks if stack.name in asked):
        try:
            where = f"student layers: {model}, stack `{stack.name}`"
            kept[stack.name] = _kept(stack, asked[stack.name], where)
        except CompatibilityError as error:
            problems.append(str(error))
    if problems:
        raise all_at_once(problems, CompatibilityError)
    return kept


def _by_name(stacks: Sequence[LayerStack], layers: object, model: str) -> dict[str, object]:
    """What is asked of each stack, a number or a list, whichever short form was written."""
    names = [stack.name for stack in stacks]
    if isinstance(layers, Mapping) and len(layers) == 1:
        (form, value), *_ = layers.items()
        fitting = [stack.name for stack in stacks if form == ("depths" if stack.staged else "keep")]
        if len(fitting) == 1 and not isinstance(value, int):
            return {fitting[0]: value}
    if isinstance(layers, Mapping) and layers and layers.keys() <= set(names):
        return dict(layers)
    if isinstance(layers, int) and (len(stacks) == 1 or set(names) == {"encoder", "decoder"}):
        return dict.fromkeys(names, layers)
    unknown = [name for name in layers if name not in names] if isinstance(layers, Mapping) else []
    guess = did_you_mean(unknown[0], [*names, "keep", "depths"]) if unknown else ""
    has = ", ".join(f"{stack.name} ({_depth(stack)} layers)" for stack in stacks)
    raise CompatibilityError(f"student layers: got {layers!r}; {model} has {has}.{guess} {_examples(stacks)}")


def _kept(stack: LayerStack, value: object, where: str) -> Kept:
    if stack.staged:
        return _kept_in_stages(stack, value, where)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= stack.depth:
            raise CompatibilityError(f"{where}: got {value}; expected 1 to {stack.depth}.")
        return (spaced(value, stack.depth),)
    if not _is_numbers(value):
        raise CompatibilityError(f"{where}: got {value!r}; expected a number of layers, or a list to keep.")
    indices = tuple(value)
    if not indices or indices != tuple(sorted(set(indices))) or indices[0] < 0 or indices[-1] >= stack.depth:
        raise CompatibilityError(
            f"{where}: got {list(indices)}; expected one or more layers from 0 to {stack.depth - 1}, each "
            "once, in rising order."
        )
    return (indices,)


def _kept_in_stages(stack: LayerStack, value: object, where: str) -> Kept:
    depths = value if _is_numbers(value) and len(value) == len(stack.depths) else ()
    if not depths or not all(1 <= n <= depth for n, depth in zip(depths, stack.depths, strict=True)):
        raise CompatibilityError(
            f"{where}: got {value!r}; its stages have {list(stack.depths)} layers: expected a list of "
            f"{len(stack.depths)} numbers, each from 1 to what its stage has. {_examples([stack])}"
        )
    return tuple(spaced(n, depth) for n, depth in zip(depths, stack.depths, strict=True))


def _is_numbers(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and all(type(entry) is int for entry in value)


def _names_layers(layers: object, stack: LayerStack) -> bool:
    """Whether the user said which layers of the stack to keep, not only how many."""
    return isinstance(layers, Mapping) and ("keep" in layers or not isinstance(layers.get(stack.name), int))


def _examples(stacks: Sequence[LayerStack]) -> str:
    """Values that would be accepted."""
    if len(stacks) > 1:
        halves = (f"{stack.name}: {_half(stack)}" for stack in stacks)
        return f"Expected for example {{{', '.join(halves)}}}; a stack that is not named stays whole."
    if stacks[0].staged:
        return f"Expected for example {{depths: {_half(stacks[0])}}}."
    ends = list(spaced(min(2, stacks[0].depth), stacks[0].depth))
    return f"Expected for example {_half(stacks[0])}, or {{keep: {ends}}}."


def _half(stack: LayerStack) -> int | list[int]:
    halves = [max(1, depth // 2) for depth in stack.depths]
    return halves if stack.staged else halves[0]


def _depth(stack: LayerStack) -> int | list[int]:
    return list(stack.depths) if stack.staged else stack.depth


def _whole(stack: LayerStack) -> Kept:
    return tuple(tuple(range(depth)) for depth in stack.depths)


def _answers(stack: LayerStack, kept: Kept) -> tuple[int, ...]:
    return _copied(stack, tuple((*indices[:-1], depth - 1) for depth, indices in zip(stack.depths, kept, strict=True)))


def _copied(stack: LayerStack, kept: Kept) -> tuple[int, ...]:
    """Layers of all stages, counted through."""
    starts = [sum(stack.depths[:stage]) for stage in range(len(stack.depths))]
    return tuple(start + index for start, indices in zip(starts, kept, strict=True) for index in indices)
