"""Finds the stacks of layers of a model from the model itself, and builds its class from an edited config.

A stack is a list of modules that grows by one when one number in the config grows by one. Nothing here knows
a model's name: each number that equals the length of a list of modules is raised by one, the model's class is
built again on the meta device (names and shapes, no memory), and the list that grew is the answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from stilla.errors import CompatibilityError

ConfigPath = tuple[str, ...]


@dataclass(frozen=True)
class LayerStack:
    """Layers that run one after the other, and where the model's config says how many there are.

    name: "layers" where the model has one stack, "stages" where it has one stack in stages (Swin, ResNet);
        else what tells the stacks apart in the config or in the module paths: "encoder", "text", ...
    paths: of the modules whose children are the layers; one, or one per stage.
    config_path: of the number of layers: ("depths",), or through a sub-config ("text_config", "num_layers").
    depths: layers per path: (12,) or (2, 2, 6, 2).
    per_layer: config paths of lists with one entry per layer, to be cut with them (`layer_types`).
    staged: the config counts the layers of each stage; widths may differ between stages.
    """

    name: str
    paths: tuple[str, ...]
    config_path: ConfigPath
    depths: tuple[int, ...]
    per_layer: tuple[ConfigPath, ...] = ()
    staged: bool = False

    @property
    def depth(self) -> int:
        """The number of layers of all stages together."""
        return sum(self.depths)

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The layers of `model`, flat, in order of execution.

        Raises:
            CompatibilityError: the model does not hold them: the stack was found in another model.
        """
        layers: list[nn.Module] = []
        for path, depth in zip(self.paths, self.depths, strict=True):
            try:
                children = list(model.get_submodule(path).children())
            except AttributeError:
                children = []
            if len(children) != depth:
                raise CompatibilityError(
                    f"stack `{self.name}`: {type(model).__name__} holds {len(children)} layers at `{path}`, "
                    f"expected {depth}: this stack was found in another model. Call find_stacks on this one."
                )
            layers.extend(children)
        return layers


def find_stacks(model: nn.Module) -> tuple[LayerStack, ...]:
    """The stacks of a Hugging Face model, in the order in which its modules stand.

    Empty where there is nothing that can be counted by the config: a model outside Hugging Face (it has no
    config to change; describe its layers by a `LayerStack` of your own), layers that share their weights
    (ALBERT), layers spread over several parallel lists (XLM).
    """
    if not isinstance(model, PreTrainedModel):
        return ()
    lists = _lists_of_layers(model)
    found: list[LayerStack] = []
    for section, config in config_sections(model.config):
        staged = _staged_stacks(model, section, config, lists)
        holders = {path.rpartition(".")[0] for stack in staged for path in stack.paths}
        plain = [
            stack
            for stack in _plain_stacks(model, section, config, lists)
            # ConvNeXt's `num_stages` grows the list that holds the stages: not layers of one width
            if not any(_holds(stack.paths[0], holder) for holder in holders)
        ]
        found += [*staged, *plain]
    order = list(lists)
    outermost = [
        stack
        for stack in found
        # experts within a layer answer to `num_experts`: they are no stack
        if not any(
            _holds(path, stack.paths[0]) for other in found if other is not stack for path in other.paths
        )
    ]
    outermost.sort(key=lambda stack: order.index(stack.paths[0]))
    return _named(outermost)


def config_sections(
    config: PreTrainedConfig, path: ConfigPath = ()
) -> Iterator[tuple[ConfigPath, PreTrainedConfig]]:
    yield path, config
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from config_sections(value, (*path, key))


def edited_config(config: PreTrainedConfig, changes: Mapping[ConfigPath, object]) -> PreTrainedConfig:
    """A new config with some values changed, validated as a file that is loaded would be.

    Going through the dictionary that would be saved makes sure that a saved student is built the same again.
    """
    values = config.to_dict()
    for path, value in changes.items():
        section = values
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = value
    new = type(config).from_dict(values)
    _copy_implementations(config, new)
    return new


def skeleton(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """The model's class built from `config` on the meta device: names, shapes and ties, without memory."""
    with _quiet(), torch.device("meta"):
        return type(model)._from_config(config)


def config_value(config: PreTrainedConfig, path: ConfigPath) -> Any:
    """The value at a path: config.text_config.num_layers at ("text_config", "num_layers")."""
    value: Any = config
    for key in path:
        value = getattr(value, key)
    return value


def _staged_stacks(
    model: PreTrainedModel, section: ConfigPath, config: PreTrainedConfig, lists: Mapping[str, int]
) -> list[LayerStack]:
    stacks = []
    for field, value in vars(config).items():
        if not _is_counts(value) or not set(value) <= set(lists.values()):
            continue
        paths: list[str] = []
        for stage in range(len(value)):
            depths = [depth + (index == stage) for index, depth in enumerate(value)]
            path = _only_list(_growth(model, {(*section, field): depths}, lists), lists, value[stage])
            if path is None or path in paths:
                break
            paths.append(path)
        else:
            stacks.append(LayerStack("", tuple(paths), (*section, field), tuple(value), staged=True))
    return stacks


def _plain_stacks(
    model: PreTrainedModel, section: ConfigPath, config: PreTrainedConfig, lists: Mapping[str, int]
) -> list[LayerStack]:
    stacks: dict[str, LayerStack] = {}
    for field, value in vars(config).items():
        if not _is_count(value) or value not in lists.values():
            continue

        def grow(names: Sequence[str], field: str = field, value: int = value) -> dict[str, int] | None:
            entries = {name: list(vars(config)[name]) for name in names}
            longer = {(*section, name): [*old, old[-1]] for name, old in entries.items()}
            return _growth(model, {(*section, field): value + 1, **longer}, lists)

        per_layer = _least_needed(_lists_of_length(config, value), lambda names: grow(names) is not None)
        path = None if per_layer is None else _only_list(grow(per_layer), lists, value)
        if path is not None and not _strides(model.get_submodule(path)):
            needed = tuple((*section, name) for name in per_layer or ())
            stacks.setdefault(path, LayerStack("", (path,), (*section, field), (value,), needed))
    canonical = type(config).attribute_map.get("num_hidden_layers", "num_hidden_layers")
    fields = {stack.config_path[-1] for stack in stacks.values()}
    if isinstance(vars(config).get(canonical), int) and canonical not in fields:
        # ALBERT: `num_hidden_groups` adds a group of weights, but `num_hidden_layers` says how often they run
        return []
    return list(stacks.values())


def _only_list(grown: Mapping[str, int] | None, lists: Mapping[str, int], length: int) -> str | None:
    """The path of the list that grew, if it is the only one, held `length` layers, and got one more."""
    if grown is None or len(grown) != 1:
        return None
    path, by = next(iter(grown.items()))
    return path if by == 1 and lists[path] == length else None


def _strides(layers: nn.Module) -> bool:
    """Whether a layer changes the number of positions: wav2vec2's first convolutions are no stack to cut."""
    convolutions = (m for m in layers.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    return any(stride != 1 for convolution in convolutions for stride in convolution.stride)


def _growth(
    model: PreTrainedModel, changes: Mapping[ConfigPath, object], lists: Mapping[str, int]
) -> dict[str, int] | None:
    """By how much each outermost list grows under a changed config; None where none can be built from it."""
    try:
        with _quiet():
            rebuilt = _lists_of_layers(skeleton(model, edited_config(model.config, changes)))
    except Exception:  # any class may refuse a config in its own way; a refusal only says "not this number"
        return None
    grown = {path: rebuilt.get(path, 0) - length for path, length in lists.items()}
    changed = [path for path, by in grown.items() if by]
    return {
        path: grown[path]
        for path in changed
        if not any(_holds(other, path) for other in changed if other != path)
    }


def _lists_of_layers(model: nn.Module) -> dict[str, int]:
    """Path -> length of every list of modules that have modules of their own (an activation is no layer)."""
    return {
        path: len(module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module) > 0
        and all(next(layer.children(), None) is not None for layer in module)
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_counts(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(_is_count(entry) for entry in value)


def _lists_of_length(config: PreTrainedConfig, length: int) -> list[str]:
    return [
        field
        for field, value in vars(config).items()
        if isinstance(value, list | tuple) and len(value) == length and field != "architectures"
    ]


def _least_needed(
    names: Sequence[str], accepted: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...] | None:
    """The lists that must grow with the layers for the model to be built, and no others."""
    if accepted(()):
        return ()
    needed = tuple(names)
    if needed and accepted(needed):
        for name in names:
            fewer = tuple(other for other in needed if other != name)
            needed = fewer if accepted(fewer) else needed
        return needed
    few = chain(combinations(names, 1), combinations(names, 2))  # one among them may not grow at all
    return next((some for some in few if accepted(some)), None)


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _named(stacks: Sequence[LayerStack]) -> tuple[LayerStack, ...]:
    if len(stacks) == 1:
        return (replace(stacks[0], name="stages" if stacks[0].staged else "layers"),)
    names = [_name(stack, stacks) for stack in stacks]
    return tuple(
        replace(stack, name=name if names.count(name) == 1 else stack.paths[0])
        for stack, name in zip(stacks, names, strict=True)
    )


def _name(stack: LayerStack, stacks: Sequence[LayerStack]) -> str:
    """What tells a stack apart: its sub-config, else the first part of its module path that differs."""
    section = stack.config_path[:-1]
    rivals = [
        other for other in stacks if other is not stack and (not section or other.config_path[:-1] == section)
    ]
    if not rivals:
        return section[-1].removesuffix("_config")
    parts = stack.paths[0].split(".")
    others = [other.paths[0].split(".") for other in rivals]
    for index, part in enumerate(parts):
        if all(other[index : index + 1] != [part] for other in others):
            return part
    return stack.paths[0]


def _copy_implementations(old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Which attention and expert kernels run is not saved with a config, but decides how a model computes."""
    new._attn_implementation = old._attn_implementation
    new._experts_implementation = old._experts_implementation
    for key, value in vars(old).items():
        copy = vars(new).get(key)
        if isinstance(value, PreTrainedConfig) and isinstance(copy, PreTrainedConfig):
            _copy_implementations(value, copy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what a class says about a config that is only tried."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
