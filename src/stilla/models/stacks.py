"""Finds the stacks of layers of a model from the model itself.

A stack is a list of modules that gets one layer more when one number in the config is raised by one. Nothing
here knows a model's name: every number that equals the length of a list of modules is tried, the model's
class is built again on the meta device (names and shapes, no memory), and the list that grew is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath, config_sections, rebuilt


@dataclass(frozen=True)
class LayerStack:
    """Layers that run one after the other, and where the model's config says how many there are.

    name: "layers" where the model has one stack, "stages" where it has one stack in stages (Swin, ResNet);
        else what tells the stacks apart in the config or in the module paths: "encoder", "text", ...
    paths: of the modules whose children are the layers; one, or one per stage.
    config_path: of the number of layers, or of a list with an entry for each (`layers_block_type`).
    depths: layers per path: (12,) or (2, 2, 6, 2).
    per_layer: config paths of further lists with one entry per layer, to be cut with them (`layer_types`).
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

    Empty where no config counts the layers of one list: a model outside Hugging Face (describe its layers by
    a `LayerStack` of your own), layers that share their weights (ALBERT) or lie in several parallel lists
    (XLM).
    """
    if not isinstance(model, PreTrainedModel):
        return ()
    lists = _lists_of_layers(model)
    found: list[LayerStack] = []
    for path, config in config_sections(model.config):
        found += _Section(model, path, config, lists).stacks()
    order = list(lists)
    outermost = [
        stack
        for stack in found
        # experts within a layer answer to `num_experts`: they are no stack
        if not any(_holds(path, stack.paths[0]) for other in found if other is not stack for path in other.paths)
    ]
    outermost.sort(key=lambda stack: order.index(stack.paths[0]))
    return _named(outermost)


@dataclass(frozen=True)
class _Section:
    """One config of a model, in which numbers are changed. lists: path -> length of the model's lists of layers."""

    model: PreTrainedModel
    path: ConfigPath
    config: PreTrainedConfig
    lists: Mapping[str, int]

    def stacks(self) -> list[LayerStack]:
        staged = self._in_stages()
        # ConvNeXt's `num_stages` grows the list that holds the stages: not layers of one width
        holders = {path.rpartition(".")[0] for stack in staged for path in stack.paths}
        plain: dict[str, LayerStack] = {}
        for stack in [*self._counted_by_lists(), *self._counted_by_numbers()]:
            path = stack.paths[0]
            layers = self.model.get_submodule(path)
            if not any(_holds(path, holder) for holder in holders) and not _strides(layers):
                plain.setdefault(path, stack)
        canonical = type(self.config).attribute_map.get("num_hidden_layers", "num_hidden_layers")
        counters = {stack.config_path[-1] for stack in plain.values()}
        if isinstance(vars(self.config).get(canonical), int) and canonical not in counters:
            # ALBERT: `num_hidden_groups` adds a group of weights, but `num_hidden_layers` says how often they
            # run
            return staged
        # beside layers, lists of convolutions alone are none: positions (data2vec), maps on their way in (Deformable DETR)
        multiplying = [stack for path, stack in plain.items() if _multiplies(self.model.get_submodule(path))]
        return [*staged, *(multiplying or plain.values())]

    def _in_stages(self) -> list[LayerStack]:
        stacks = []
        for field, depths in vars(self.config).items():
            if not _is_counts(depths) or not set(depths) <= set(self.lists.values()):
                continue
            paths: list[str] = []
            for stage, depth in enumerate(depths):
                more = [other + (index == stage) for index, other in enumerate(depths)]
                path = self._list_that_grows({field: more}, depth)
                if path is None or path in paths:
                    break
                paths.append(path)
            else:
                stacks.append(LayerStack("", tuple(paths), (*self.path, field), tuple(depths), staged=True))
        return stacks

    def _counted_by_lists(self) -> list[LayerStack]:
        """Nemotron-H has no number of layers, only the list of what each of them is."""
        stacks = []
        for field, entries in vars(self.config).items():
            if isinstance(entries, list) and entries and all(isinstance(entry, str) for entry in entries):
                path = self._list_that_grows(self._longer([field]), len(entries))
                if path is not None:
                    stacks.append(LayerStack("", (path,), (*self.path, field), (len(entries),)))
        return stacks

    def _counted_by_numbers(self) -> list[LayerStack]:
        stacks = []
        for field, depth in vars(self.config).items():
            if not _is_count(depth) or depth not in self.lists.values():
                continue

            def changes(names: Sequence[str], field: str = field, depth: int = depth) -> dict[str, object]:
                return {field: depth + 1, **self._longer(names), **self._one_more_override(depth)}

            per_layer = _least_needed(
                self._lists_of_length(depth), lambda names: self._growth(changes(names)) is not None
            )
            path = None if per_layer is None else self._list_that_grows(changes(per_layer), depth)
            if per_layer is not None and path is not None:
                needed = tuple((*self.path, name) for name in per_layer)
                stacks.append(LayerStack("", (path,), (*self.path, field), (depth,), needed))
        return stacks

    def _list_that_grows(self, changes: Mapping[str, object], length: int) -> str | None:
        """The path of the list that grows, if it is the only one, holds `length` layers, and gets one more."""
        grown = self._growth(changes) or {}
        if list(grown.values()) != [1]:
            return None
        path = next(iter(grown))
        return path if self.lists[path] == length else None

    def _growth(self, changes: Mapping[str, object]) -> dict[str, int] | None:
        """By how much each outermost list grows; None where no model can be built from the changed config."""
        lists = rebuilt(self.model, {(*self.path, field): value for field, value in changes.items()}, _lists_of_layers)
        if lists is None:
            return None
        grown = {path: lists.get(path, 0) - length for path, length in self.lists.items()}
        changed = [path for path, by in grown.items() if by]
        return {
            path: grown[path] for path in changed if not any(_holds(other, path) for other in changed if other != path)
        }

    def _longer(self, names: Sequence[str]) -> dict[str, object]:
        entries = {name: list(vars(self.config)[name]) for name in names}
        return {name: [*old, old[-1]] for name, old in entries.items()}

    def _lists_of_length(self, length: int) -> list[str]:
        return [
            field
            for field, value in vars(self.config).items()
            if isinstance(value, list | tuple) and len(value) == length and field != "architectures"
        ]

    def _one_more_override(self, depth: int) -> dict[str, object]:
        """What `per_layer_config` says of single layers, with the last one's repeated for one more."""
        overrides = self.config.to_dict().get("per_layer_config") or {}
        last = {int(layer): values for layer, values in overrides.items()}.get(depth - 1)
        return {"per_layer_config": {**overrides, depth: last}} if last else {}


def _least_needed(names: Sequence[str], accepted: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...] | None:
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


def _lists_of_layers(model: nn.Module) -> dict[str, int]:
    """Path -> length of every list of modules that have modules of their own (an activation is no layer)."""
    return {
        path: len(module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module) > 0
        and all(next(layer.children(), None) is not None for layer in module)
    }


def _strides(layers: nn.Module) -> bool:
    """Whether a layer changes the number of positions: wav2vec2's first convolutions are no stack to cut."""
    convolutions = (m for m in layers.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    return any(stride != 1 for convolution in convolutions for stride in convolution.stride)


def _multiplies(layers: nn.Module) -> bool:
    """Whether layers hold matrices (quantised ones as buffers), and not convolutions alone."""
    return any(weight.dim() == 2 for weight in chain(layers.parameters(), layers.buffers()))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_counts(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(_is_count(entry) for entry in value)


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
    rivals = [other for other in stacks if other is not stack and (not section or other.config_path[:-1] == section)]
    if not rivals:
        return section[-1].removesuffix("_config")
    parts = stack.paths[0].split(".")
    others = [other.paths[0].split(".") for other in rivals]
    for index, part in enumerate(parts):
        if all(other[index : index + 1] != [part] for other in others):
            return part
    return stack.paths[0]
