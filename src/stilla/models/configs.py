"""A model's class, built again from an edited config: how its structure is asked without knowing its name."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

# ("text_config", "num_hidden_layers"), ("depths",)
ConfigPath = tuple[str, ...]
_ASKED = re.compile(r"""getattr\(\s*(?:self\.)?config,\s*["'](\w+)["'],""")
# a tensor's name, and one of its dimensions
Axis = tuple[str, int]
Answer = TypeVar("Answer")


def config_sections(config: PreTrainedConfig, path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, PreTrainedConfig]]:
    """A config and all configs within it, each with its path."""
    yield path, config
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from config_sections(value, (*path, key))


def config_value(config: PreTrainedConfig, path: ConfigPath) -> Any:
    """The value at a path: config.text_config.num_layers at ("text_config", "num_layers")."""
    value: Any = config
    for key in path:
        value = getattr(value, key)
    return value


def changed_numbers(before: PreTrainedConfig, after: PreTrainedConfig) -> list[str]:
    """`hidden_size 384 → 192` for every number, and every list of numbers, that two configs have in common and differ in.

    Of what their class knows: what was chosen after a training and is kept beside it (thresholds) is no part of a cut.
    """
    try:
        known = set(type(before)().to_dict())
    except (TypeError, ValueError):  # a config of others, which have to be given
        known = set(before.to_dict())
    old, new = (dict(_numbers({name: value for name, value in config.to_dict().items() if name in known}))
                for config in (before, after))
    return [f"{name} {_shown(old[name])} → {_shown(new[name])}" for name in old if name in new and old[name] != new[name]]


def _numbers(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{within}{name}.")
        elif all(type(one) in (int, float) for one in (value if isinstance(value, list | tuple) and value else [value])):
            yield within + name, list(value) if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def edited_config(config: PreTrainedConfig, changes: Mapping[ConfigPath, object]) -> PreTrainedConfig:
    """A new config with some values changed, validated as a file that is loaded would be.

    Going through the dictionary that would be saved makes sure that a saved student is built the same again.
    """
    values = config.to_dict()
    for key in _derived(config, values):
        del values[key]
    for path, value in changes.items():
        section = values
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = value
    new = type(config).from_dict(values)
    _copy_implementations(config, new)
    return new


def asked_for(model: type[nn.Module]) -> frozenset[str]:
    """Fields that a class asks its config for where they need not stand (`getattr(config, "position_buckets", -1)`): the
    config's class does not declare them, and files of other models have them."""
    own = (one for one in model.__mro__ if issubclass(one, PreTrainedModel) and one is not PreTrainedModel)
    return frozenset().union(*(_asked_for(one.__module__) for one in own))


@cache
def _asked_for(module: str) -> frozenset[str]:
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # nobody knows its source
        return frozenset()
    return frozenset(name for name in _ASKED.findall(source) if not name.startswith("_"))


def write(model: nn.Module, field: str, value: Any) -> None:
    """Put a field that a config's class knows nothing of into a model's, where it is one of transformers."""
    if isinstance(model, PreTrainedModel):
        model.config.update({field: value})


def without(model: nn.Module, field: str) -> None:
    """Take a field that a config's class knows nothing of out of a model's, where it is one of transformers."""
    if says(model, field):
        delattr(model.config, field)


def says(model: nn.Module, field: str) -> bool:
    """Whether a config says such a field, where it is one of transformers' models."""
    return isinstance(model, PreTrainedModel) and field in vars(model.config)


def _derived(config: PreTrainedConfig, values: Mapping[str, object]) -> list[str]:
    """Sections that a config makes of its own numbers, and saves beside them: kept as they are, they would hide from the
    model what was changed (`encoder_config` of FastSpeech2Conformer, of `encoder_layers`)."""
    declared = inspect.signature(type(config)).parameters
    made = [key for key, value in values.items() if isinstance(value, dict) and value and key not in declared
            and not isinstance(vars(config).get(key), PreTrainedConfig)]
    if not made:
        return []
    again = type(config).from_dict({key: value for key, value in values.items() if key not in made}).to_dict()
    return [key for key in made if again.get(key) == values[key]]


def skeleton(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """The model's class built from `config` on the meta device: names, shapes and ties, without memory."""
    with quiet(), torch.device("meta"):
        return type(model)._from_config(config)


def with_buffers(model: PreTrainedModel, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """The model's class, built again with the values of its buffers; its parameters are on the meta device.

    config: by default the model's own.
    """
    with quiet(), torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        return type(model)._from_config(copy.deepcopy(model.config if config is None else config))


class Shapes:
    """The shapes of a model's tensors, and which of them another config changes."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        with quiet():
            self.whole = _shapes(skeleton(model, edited_config(model.config, {})))

    def changed(self, changes: Mapping[ConfigPath, object]) -> dict[Axis, tuple[int, int]] | None:
        """The axes of other size, each with the old and the new; None where no model, or other tensors come of it."""
        built = rebuilt(self.model, changes, _shapes)
        if built is None or built.keys() != self.whole.keys():
            return None
        if any(len(built[name]) != len(self.whole[name]) for name in built):
            return None
        return {(name, axis): (old, new) for name in built
                for axis, (old, new) in enumerate(zip(self.whole[name], built[name], strict=True)) if old != new}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


_KNOWN: dict[tuple[Callable[..., object], type[PreTrainedModel], str], Any] = {}
_KEPT = 256
"""Answers: a run asks the same of its models again and again."""


def rebuilt(
    model: PreTrainedModel, changes: Mapping[ConfigPath, object], asked: Callable[[PreTrainedModel], Answer]
) -> Answer | None:
    """What a function says of the model's class, built on the meta device from the model's config with changes.

    None where the class refuses them. Each is built once in a process, whichever model of this class and config asks:
    the answers are not to be changed.
    """
    config = hashlib.sha256(repr((type(model.config), model.config.to_dict(), changes)).encode()).hexdigest()
    key = asked, type(model), config
    if key not in _KNOWN:
        if len(_KNOWN) >= _KEPT:
            del _KNOWN[next(iter(_KNOWN))]
        try:
            with quiet():
                _KNOWN[key] = asked(skeleton(model, edited_config(model.config, changes)))
        except Exception:  # each class refuses a config in its own way
            _KNOWN[key] = None
    found: Answer | None = _KNOWN[key]
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what a class says about a config that is only tried."""
    verbosity = transformers_logging.get_verbosity()
    if verbosity != transformers_logging.CRITICAL:  # setting it takes longer the more loggers there are
        transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if verbosity != transformers_logging.CRITICAL:
            transformers_logging.set_verbosity(verbosity)


def _copy_implementations(old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Which attention and expert kernels run is not saved with a config, but decides how a model computes."""
    new._attn_implementation = old._attn_implementation
    new._experts_implementation = old._experts_implementation
    for key, value in vars(old).items():
        twin = vars(new).get(key)
        if isinstance(value, PreTrainedConfig) and isinstance(twin, PreTrainedConfig):
            _copy_implementations(value, twin)


def attention_of(config: PreTrainedConfig) -> str | dict[str, str]:
    """Which attention a model computes with, as `from_pretrained` takes it: by part, where parts (a backbone that has none)
    differ."""
    parts = {name: inner for name, value in vars(config).items()
             if isinstance(value, PreTrainedConfig) and isinstance(inner := attention_of(value), str)}
    own: str = config._attn_implementation
    return own if {*parts.values()} <= {own} else {"": own, **parts}


@contextmanager
def as_delivered(model: PreTrainedModel) -> Iterator[None]:
    """A model that writes text comes with its cache of keys and values switched on; whole forwards run without."""
    off = model.can_generate() and vars(model.config).get("use_cache") is False
    if off:
        model.config.use_cache = True
    try:
        yield
    finally:
        if off:
            model.config.use_cache = False
