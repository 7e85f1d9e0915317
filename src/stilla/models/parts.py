"""Which weights of a model a person means by the name of a part: `embeddings`, `layers.0-2`, `head`, `bert.encoder.*`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

from torch import nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError, all_at_once, did_you_mean, one_of
from stilla.models.entry import entry_of
from stilla.models.stacks import LayerStack, find_stacks

_LAYERS = re.compile(r"layers\.(\d+)(?:-(\d+))?")
KNOWN = ("embeddings", "layers", "head")
"""Parts that need no name of the model's own."""


def chosen(model: nn.Module, patterns: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """The names of the parameters that are meant, in the model's order; all of them where nothing is said.

    `embeddings`: all that lies before the layers. `layers`: all layers; `layers.0` and `layers.0-2` are some, counted from 0
    in every stack. `head`: what comes on top of the base model. The name of a stack, `encoder` or `vision`: its layers with
    all that stands around them (embeddings, convolutions, norms) and is nobody else's. Anything else is the name of a
    parameter or of a module that holds it, in which `*` stands for anything. `place`: of the recipe or call, for errors.

    Raises:
        CompatibilityError: a pattern that matches nothing, or names layers that no stack has; all of them at once.
    """
    names = [name for name, _ in model.named_parameters()]
    if patterns is None:
        return tuple(names)
    aliases = _first_names(model)
    parts, found, lacking = _Parts(model), set[str](), list[str]()
    for pattern in patterns:
        meant = {aliases[name] for name in parts.meant(pattern)}
        found |= meant
        too_far = parts.beyond(pattern)
        if too_far is not None:
            lacking.append(f"{place}: {pattern!r} goes to layer {too_far} of {type(model).__name__}; "
                           f"{parts.expected(pattern)}")
        elif not meant:
            lacking.append(f"{place}: {pattern!r} matches no weight of {type(model).__name__}; {parts.expected(pattern)}")
    if lacking:
        raise all_at_once(lacking, CompatibilityError)
    return tuple(name for name in names if name in found)


def _first_names(model: nn.Module) -> dict[str, str]:
    """Of every name that a parameter has, the first: tied ones have several."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}


class _Parts:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = list(_first_names(model))
        self._stacks: tuple[LayerStack, ...] | None = None

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        if self._stacks is None:
            self._stacks = find_stacks(self.model)
        return self._stacks

    def meant(self, pattern: str) -> list[str]:
        """The names of all parameters that it matches."""
        numbered = _LAYERS.fullmatch(pattern)
        if pattern == "embeddings":
            return self._below(list(self._embeddings()))
        if pattern == "head":
            return self._head()
        if pattern == "layers":
            return self._below([path for stack in self.stacks for path in stack.paths])
        if numbered and self.stacks:
            first, last = int(numbered[1]), int(numbered[2] or numbered[1])
            return self._below([path for stack in self.stacks for path in layer_paths(stack)[first:last + 1]])
        if len(self.stacks) > 1 and (named := [stack for stack in self.stacks if stack.name == pattern]):
            return self._around(named[0])
        return [name for name in self.names if any(fnmatchcase(one, pattern) for one in _holders(name))]

    def beyond(self, pattern: str) -> int | None:
        """The last layer that it names, where that is behind the deepest stack's end: less than was asked would be meant."""
        numbered = _LAYERS.fullmatch(pattern)
        if numbered is None or not self.stacks:
            return None
        last = max(int(number) for number in numbered.groups() if number is not None)
        return last if last >= max(stack.depth for stack in self.stacks) else None

    def _around(self, stack: LayerStack) -> list[str]:
        """The parameters of the largest module around a stack's layers that holds no other's, but for those that other parts
        have too."""
        steps = [path.split(".")[:-1] for path in stack.paths]
        same = takewhile(lambda names: len(set(names)) == 1, zip(*steps, strict=False))
        holder = ".".join(names[0] for names in same)
        others = [path for other in self.stacks if other is not stack for path in other.paths]
        while (outer := holder.rpartition(".")[0]) and not any(_within(path, outer) for path in others):
            holder = outer
        shared = {id(one) for name, one in self.model.named_parameters(remove_duplicate=False) if not _within(name, holder)}
        return [name for name, one in self.model.named_parameters(remove_duplicate=False)
                if _within(name, holder) and id(one) not in shared]

    def expected(self, pattern: str) -> str:
        tops = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in self.names))
        known = [*(one for one in KNOWN if self.meant(one)), *(stack.name for stack in self.stacks if len(self.stacks) > 1)]
        depths = [stack.depth for stack in self.stacks]
        numbers = [f"layers.0 to layers.{max(depths) - 1}"] if depths else []
        return (f"expected {one_of([*known, *numbers])}, or a name or pattern of its own: {one_of(tops[:8])}."
                f"{did_you_mean(pattern, [*known, *tops])}")

    def _below(self, modules: Sequence[str]) -> list[str]:
        return [name for name in self.names if any(holder in modules for holder in _holders(name))]

    def _head(self) -> list[str]:
        """What the base model does not hold, or shares with what comes on top of it."""
        if not isinstance(self.model, PreTrainedModel):
            return []
        base = self.model.base_model_prefix
        output = self.model.get_output_embeddings()
        tied = {id(one) for one in output.parameters()} if isinstance(output, nn.Module) else set()
        holds = base and base in dict(self.model.named_children())
        return [name for name, one in self.model.named_parameters(remove_duplicate=False)
                if id(one) in tied or (holds and not name.startswith(f"{base}."))]

    def _embeddings(self) -> Iterator[str]:
        """The largest modules around what inputs are embedded by that hold no layer."""
        if not isinstance(self.model, PreTrainedModel):
            return
        inside = {path for stack in self.stacks for path in stack.paths}
        entry = entry_of(self.model)
        for name, module in self.model.named_modules():
            if (module is entry or isinstance(module, nn.Embedding)) and not any(_within(name, path) for path in inside):
                outer = name
                while inside and (around := outer.rpartition(".")[0]) and not any(_within(path, around) for path in inside):
                    outer = around
                yield outer


def layer_paths(stack: LayerStack) -> list[str]:
    """Where the layers of a stack lie, flat, in order of execution."""
    return [f"{path}.{index}" for path, depth in zip(stack.paths, stack.depths, strict=True) for index in range(depth)]


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _holders(name: str) -> list[str]:
    """A parameter's name and those of all modules that hold it."""
    steps = name.split(".")
    return [".".join(steps[:length]) for length in range(1, len(steps) + 1)]
