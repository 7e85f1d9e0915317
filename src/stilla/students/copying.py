"""Gives a student that was built without weights its teacher's: each has a source, or is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_at_once
from stilla.models.configs import with_buffers
from stilla.models.depths import Kept
from stilla.models.stacks import LayerStack


def copy_weights(student: PreTrainedModel, teacher: PreTrainedModel, kept: Mapping[LayerStack, Kept]) -> None:
    """Gives every tensor of `student` (on the meta device) a copy of its source in the teacher.

    What is one tensor in the teacher is one in the student. Half precision is widened to float32: the student
    is going to be trained. What only the layer at a certain position holds (T5's relative position bias, in
    block 0) comes from the teacher's layer at that position.

    Raises:
        CompatibilityError: a tensor without a source or of another shape, a weight of a kept layer without a
            place in the student, ties that a saved student would not load with, or a quantised teacher.
    """
    ours, theirs = tensors(student), tensors(teacher)
    sources = _sources(ours, theirs, kept)
    saved = {*student.state_dict(keep_vars=True), *teacher.state_dict(keep_vars=True)}
    problems = [
        *_quantised(theirs),
        *_without_counterpart(ours, theirs, sources, saved),
        *_bound_to_place(student, theirs, sources, saved),
        *_other_ties(ours, theirs, sources),
    ]
    if problems:
        name = type(teacher).__name__
        raise all_at_once([f"{name} cannot be cut: {problem}" for problem in problems], CompatibilityError)
    copies: dict[int, Tensor] = {}
    for name, target in ours.items():
        source = theirs[sources.of[name]]
        if id(source) not in copies:
            copies[id(source)] = _copy(source, target)
        owner, _, attribute = name.rpartition(".")
        setattr(student.get_submodule(owner), attribute, copies[id(source)])


@dataclass(frozen=True)
class _Sources:
    """of: student tensor -> teacher tensor. dropped: the teacher's tensors that go with their layer."""

    of: Mapping[str, str]
    dropped: frozenset[str]


def _sources(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], kept: Mapping[LayerStack, Kept]) -> _Sources:
    origin: dict[str, str] = {}  # of a layer
    gone: set[str] = set()
    for stack, indices_per_path in kept.items():
        for path, depth, indices in zip(stack.paths, stack.depths, indices_per_path, strict=True):
            origin |= {f"{path}.{position}": f"{path}.{index}" for position, index in enumerate(indices)}
            gone |= {f"{path}.{index}" for index in set(range(depth)) - set(indices)}
    of = {}
    for name in ours:
        layer = _layer(name, origin)
        source = origin[layer] + name.removeprefix(layer) if layer else name
        of[name] = source if source in theirs else name  # a lent one: the teacher's layer at our position has it
    return _Sources(of, frozenset(name for name in theirs if _layer(name, gone)))


def _layer(name: str, layers: Iterable[str]) -> str:
    """Which of `layers` a tensor belongs to: the longest prefix of its name; '' if to none."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    return next((prefix for prefix in prefixes if prefix in layers), "")


def _quantised(theirs: Mapping[str, Tensor]) -> list[str]:
    for name, tensor in theirs.items():
        if tensor.is_meta:
            return [f"`{name}` is not in memory. Load the teacher without offloading."]
        if isinstance(tensor, nn.Parameter) and (not tensor.is_floating_point() or tensor.element_size() < 2):
            return [f"`{name}` is {tensor.dtype}, which cannot be trained. Load the teacher unquantised."]
    return []


def _without_counterpart(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], sources: _Sources, saved: set[str]
) -> list[str]:
    # A buffer that is not saved is no knowledge: the teacher's table of frequencies for a kind of layer that
    # is gone (ModernBERT) has no place, one of sinusoidal positions may have grown while it ran
    missing = [name for name, source in sources.of.items() if source not in theirs]
    unexpected = sorted((theirs.keys() & saved) - set(sources.of.values()) - sources.dropped)
    reshaped = [
        f"{name} {tuple(theirs[source].shape)} for {tuple(ours[name].shape)}"
        for name, source in sources.of.items()
        if source in theirs and name in saved and theirs[source].shape != ours[name].shape
    ]
    return [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}. Keep other layers, "
        "or give the student as `student: {model: ...}` or `{config: ...}`."
        for what, names in (
            ("weights of the student would be random", missing),
            ("weights of kept layers would be lost", unexpected),
            ("weights depend on the number of layers", reshaped),
        )
        if names
    ]


def _bound_to_place(
    student: PreTrainedModel, theirs: Mapping[str, Tensor], sources: _Sources, saved: set[str]
) -> list[str]:
    """Tables that are not saved but made when a model is loaded, from the place of a layer (MiniMax's slopes)."""
    moved = {
        name: theirs[source]
        for name, source in sources.of.items()
        if source != name and name not in saved and source in theirs
    }
    differing = [name for name, tensor in moved.items() if name not in theirs or not _same(theirs[name], tensor)]
    if differing:  # by their place, or by their kind, which moves with them (GPT-Neo's local attention)
        made = tensors(with_buffers(student))
        differing = [name for name in differing if not _same(made[name], moved[name])]
    return [
        f"`{name}` follows from the place of its layer, and would be another one once the student is loaded. "
        "Keep other layers, or give the student as `student: {model: ...}` or `{config: ...}`."
        for name in differing[:1]
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.is_meta or torch.equal(one.to(other.device, other.dtype), other))


def _other_ties(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], sources: _Sources) -> list[str]:
    built = _ties(ours)
    copied = _ties({name: theirs[source] for name, source in sources.of.items() if source in theirs})
    return [
        f"{' and '.join(sorted(names))} are one tensor in {there} but not in {elsewhere}: a saved student "
        "would not load as it was. Set `tie_word_embeddings` in the teacher's config to what the teacher "
        "does."
        for groups, there, elsewhere in (
            (copied - built, "the teacher", "a model built from its config"),
            (built - copied, "a model built from the teacher's config", "the teacher"),
        )
        for names in sorted(groups, key=sorted)
    ]


def _ties(tensors: Mapping[str, Tensor]) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, buffer and plain tensor by every name it has: tied ones have several."""
    plain = {
        f"{path}.{attribute}".lstrip("."): value
        for path, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    }
    return {
        **plain,
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _copy(source: Tensor, target: Tensor) -> Tensor:
    copy = source.detach().clone()
    if copy.dtype in (torch.float16, torch.bfloat16):
        copy = copy.float()
    return nn.Parameter(copy, target.requires_grad) if isinstance(target, nn.Parameter) else copy
