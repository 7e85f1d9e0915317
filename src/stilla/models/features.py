"""What a model computes on the way, read from its layers while it runs: the only file with forward hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import config_sections
from stilla.models.modes import in_eval_mode
from stilla.models.stacks import LayerStack, find_stacks
from stilla.signals import Grid

_PREFIX = 16
"""Tokens before the patches at most (a class, a distillation token, registers): more stand behind them (YOLOS)."""

_WAVE = 8_000
"""Samples of a made-up wave."""
_SPECTROGRAM = 24
"""Frames of a made-up spectrogram of any length."""

# A tensor, and how often it had been changed in place when it was recorded.
_Seen = tuple[Tensor, int]


@contextmanager
def replacing(module: nn.Module, made: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What the module gives in forwards inside is what `made` makes of it."""
    handle = module.register_forward_hook(lambda _, given, output: made(output))
    try:
        yield
    finally:
        handle.remove()


class Recorder:
    """Records what enters the first layer and what leaves every layer of a model's stacks in one forward.

    stacks: those wanted; by default all that `find_stacks` finds. Where it finds none, in a model outside
        Hugging Face, they can be described: LayerStack("stages", ("layer1", "layer2"), (), (2, 2)).

    Raises:
        CompatibilityError: the model has no stacks, or not these.
    """

    def __init__(self, model: nn.Module, stacks: Sequence[LayerStack] | None = None) -> None:
        self.stacks = tuple(find_stacks(model) if stacks is None else stacks)
        if not self.stacks:
            raise CompatibilityError(
                f"{type(model).__name__} has no stack of layers whose states could be recorded: its layers "
                "share their weights, or no number in a config counts them. Leave `hidden` and `maps` out."
            )
        self._layers = {stack.name: stack.layers(model) for stack in self.stacks}
        # looked at once: it takes as long as a small layer's forward
        self._channels_first = frozenset(
            (name, index) for name, layers in self._layers.items() for index, layer in enumerate(layers)
            if _holds_convolutions(layer))
        inside = {id(one) for layers in self._layers.values() for layer in layers for one in layer.modules()}
        self._embeds = [one for one in model.modules() if isinstance(one, nn.Conv2d) and id(one) not in inside]
        self._model = model

    @contextmanager
    def recording(self) -> Iterator[Record]:
        """Hooks are on the layers inside only; the tensors, with their graph, are held by the record alone.

        Run one forward inside and its backward outside: what gradient checkpointing computes a second time is
        then not recorded.
        """
        record = Record({name: len(layers) for name, layers in self._layers.items()}, self._channels_first)
        handles: list[RemovableHandle] = [self._model.register_forward_pre_hook(record._starts, with_kwargs=True)]
        handles += [one.register_forward_hook(record._embedded) for one in self._embeds]
        for name, layers in self._layers.items():
            for index, layer in enumerate(layers):
                handles.append(layer.register_forward_pre_hook(partial(record._enters, name, index), with_kwargs=True))
                handles.append(layer.register_forward_hook(partial(record._leaves, name, index)))
        try:
            yield record
        finally:
            for handle in handles:
                handle.remove()


class Record:
    """The states of one forward, by stack; filled by a Recorder.

    channels_first: (stack, index) of the layers whose maps are (batch, channels, height, width).
    """

    def __init__(self, depths: Mapping[str, int], channels_first: Collection[tuple[str, int]]) -> None:
        self._depths = dict(depths)
        self._entered: dict[str, _Seen] = {}
        self._left: dict[str, dict[int, _Seen]] = {name: {} for name in depths}
        self._channels_first = channels_first
        self._needs_graph = False
        self._patches: tuple[int, int] | None = None
        self._examples: frozenset[int] = frozenset()

    @property
    def hidden_states(self) -> dict[str, tuple[Float[Tensor, "batch positions width"], ...]]:
        """Per stack n + 1 states: [0] enters layer 0, [i] leaves layer i - 1, before any norm that follows.

        Maps (batch, channels, height, width) come as (batch, height * width, channels). A layer that was
        skipped in training (LayerDrop) passes on what it would have got. A stack that did not run is missing.

        Raises:
            CompatibilityError: a state was changed in place since, or is no sequence of positions.
        """
        return {name: tuple(self._sequence(seen, name, index) for seen, index in self._in_order(name))
                for name, left in self._left.items() if left}

    @property
    def grids(self) -> dict[str, tuple[Grid | None, ...]]:
        """Per stack, where in a picture the positions of each of its `hidden_states` lie; None where that is not known.

        A map tells it. Of a sequence, it is the grid of the map that was cut into patches before the layers (the output of
        the last convolution there), with what stands before it, or that grid made coarser by stages (Swin).
        """
        return {name: tuple(self._grid(seen[0], name, index) for seen, index in self._in_order(name))
                for name, left in self._left.items() if left}

    def _in_order(self, name: str) -> list[tuple[_Seen, int]]:
        """What was seen, with the number of the layer that gave it (of the first, that got it)."""
        left = self._left[name]
        found = [(self._entered[name], min(left))]
        for index in range(self._depths[name]):
            found.append((left[index], index) if index in left else found[-1])
        return found

    def _grid(self, state: Tensor, name: str, index: int) -> Grid | None:
        if state.dim() == 4:
            return Grid(*(state.shape[2:] if (name, index) in self._channels_first else state.shape[1:3]))
        if self._patches is None or state.dim() != 3:
            return None
        (height, width), positions = self._patches, state.shape[1]
        prefix = positions - height * width
        if prefix >= 0:
            return Grid(height, width, prefix) if prefix <= _PREFIX else None
        coarser = ((-(-height // by), -(-width // by)) for by in (2, 4, 8, 16, 32))
        return next((Grid(*one) for one in coarser if one[0] * one[1] == positions), None)

    def _sequence(self, seen: _Seen, name: str, index: int) -> Tensor:
        state, version = seen
        if version != _version(state):
            raise CompatibilityError(
                f"a state at layer {index} of stack `{name}` was changed in place after it was recorded: "
                "what is left is not what the layer gave. Leave this stack out of `hidden`."
            )
        if state.dim() == 4:
            channels_first = (name, index) in self._channels_first
            return state.flatten(2).transpose(1, 2) if channels_first else state.flatten(1, 2)
        if state.dim() != 3:
            raise CompatibilityError(
                f"layer {index} of stack `{name}` works on tensors of shape {tuple(state.shape)}; expected "
                "(batch, positions, width), or maps. Leave this stack out of `hidden`."
            )
        if self._examples and state.shape[0] not in self._examples and state.shape[1] in self._examples:
            raise CompatibilityError(
                f"layer {index} of stack `{name}` works on tensors of (positions, batch, width), here {tuple(state.shape)}; "
                "expected (batch, positions, width). Leave this stack out of `hidden`."
            )
        return state

    def _embedded(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and not any(self._left.values()):
            self._patches = output.shape[2], output.shape[3]

    def _starts(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._needs_graph = torch.is_grad_enabled()
        given = (one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.dim() > 0)
        self._examples = frozenset(one.shape[0] for one in given)

    def _enters(self, name: str, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        left = self._left[name]
        if left and index <= max(left):
            raise CompatibilityError(
                f"layer {index} of stack `{name}` ran after layer {max(left)}: a recording holds one "
                "forward through the layers in their order. Record every forward by itself; a model "
                "that runs its layers several times, or in another order, cannot be recorded."
            )
        if not left:
            self._entered[name] = _seen(_hidden_state((*args, kwargs), layer))

    def _leaves(self, name: str, index: int, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._needs_graph and not torch.is_grad_enabled():
            raise CompatibilityError(
                f"layer {index} of stack `{name}` ran without a graph in a forward that has one: "
                "reentrant gradient checkpointing. Use `gradient_checkpointing_kwargs: "
                "{use_reentrant: false}`."
            )
        self._left[name][index] = _seen(_hidden_state(output, layer))


def hidden_sizes(
    model: nn.Module, stacks: Sequence[LayerStack], inputs: Mapping[str, Any] | None = None
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Positions and width of every recorded state, per stack, from one forward without gradient.

    No config says this for every family, and stages differ in width. The model's mode and torch's random
    state are as before.

    inputs: a small batch; by default one is made up, for models that read token ids, pictures or both.

    Raises:
        CompatibilityError: no inputs were given and none could be made up, or a stack cannot be recorded.
    """
    recorder = Recorder(model, stacks)
    devices = sorted({parameter.device.index for parameter in model.parameters() if parameter.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices=devices), recorder.recording() as record, in_eval_mode(model):
        if inputs is None:
            _run_on_made_up_inputs(model)
        else:
            model(**inputs)
    recorded = record.hidden_states
    return {name: tuple((state.shape[-2], state.shape[-1]) for state in states) for name, states in recorded.items()}


def _run_on_made_up_inputs(model: nn.Module) -> None:
    try:
        model(**made_up_inputs(model))
    except Exception as error:  # whatever a class says to inputs that it does not take
        raise CompatibilityError(
            f"no inputs could be made up for {type(model).__name__} to see how wide its states are: {error}. "
            "Call hidden_sizes with a small batch."
        ) from error


def made_up_inputs(model: nn.Module) -> dict[str, Tensor]:
    """One example for models that read token ids, pictures or both, or hear sounds. Where pictures stand at tokens of a text,
    it is a text without one.

    Raises:
        TypeError: it is not a Hugging Face model.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError("it is not a Hugging Face model")
    accepted = inspect.signature(model.forward).parameters
    inputs: dict[str, Tensor] = {}
    for name in ("input_ids", "decoder_input_ids"):
        if name in accepted:
            # some classifiers read the state at the end of the sequence, wherever that token stands
            end = _first_value(model, "eos_token_id", 1)
            token = min(end if isinstance(end, int) else end[0], _first_value(model, "vocab_size", 2) - 1)
            inputs[name] = torch.full((1, 8), token, device=model.device)
    at_tokens = any(isinstance(vars(model.config).get(name), int) for name in ("image_token_id", "image_token_index"))
    if "pixel_values" in accepted and not ("input_ids" in accepted and at_tokens):
        size = _first_value(model, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        shape = (1, _first_value(model, "num_channels", 3), height, width)
        inputs["pixel_values"] = torch.zeros(shape, device=model.device, dtype=model.dtype)
    return inputs | _made_up_sounds(model, accepted)


def _made_up_sounds(model: PreTrainedModel, accepted: Mapping[str, Any]) -> dict[str, Tensor]:
    """A wave where the config has convolutions over time, else a spectrogram of as many bins and frames as it says."""
    bins = _first_value(model, "num_mel_bins", 0)
    waves = _first_value(model, "conv_kernel", None) is not None or not bins
    positions = _first_value(model, "max_source_positions", None)
    shapes: dict[str, tuple[int, ...]] = {
        "input_values": (1, _WAVE) if waves else (1, _first_value(model, "max_length", 1024), bins),
        "input_features": (1, _SPECTROGRAM, _first_value(model, "feature_projection_input_dim", bins))
        if positions is None else (1, bins, 2 * positions)}
    return {name: torch.zeros(shape, device=model.device, dtype=model.dtype) for name, shape in shapes.items()
            if name in accepted}


def varied_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Two examples of tokens that differ, the last as in `made_up_inputs`, or of noise.

    Raises:
        TypeError: it is not a Hugging Face model.
    """
    made = made_up_inputs(model)
    assert isinstance(model, PreTrainedModel)
    configs = [vars(config) for _, config in config_sections(model.config)]
    special = {value for config in configs for name, value in config.items() if name.endswith("_token_id")}
    known = min((value for config in configs for name, value in config.items()
                 if name in ("vocab_size", "decoder_vocab_size") and isinstance(value, int)), default=2)
    generator = torch.Generator().manual_seed(0)
    varied: dict[str, Tensor] = {}
    for name, value in made.items():
        if value.is_floating_point():
            varied[name] = torch.randn((2, *value.shape[1:]), generator=generator).to(value)
            continue
        end = int(value.max())
        usual = torch.tensor([token for token in range(min(known, 10_000)) if token not in special and token != end])
        drawn = usual[torch.randint(len(usual), (2, 12), generator=generator)]
        drawn[:, -1] = end
        varied[name] = drawn.to(value)
    return varied


def _first_value(model: PreTrainedModel, field: str, default: Any) -> Any:
    """Of the first of the model's configs that sets the field."""
    values = (vars(config).get(field) for _, config in config_sections(model.config))
    return next((value for value in values if value is not None), default)


def _hidden_state(value: Any, layer: nn.Module) -> Tensor:
    """The hidden state among what enters or leaves a layer: what is named so, or the first tensor."""
    if isinstance(value, Mapping):
        named = value.get("hidden_states", value.get("last_hidden_state"))
        return _hidden_state(tuple(value.values()) if named is None else named, layer)
    if isinstance(value, tuple | list):
        found = (entry for entry in value if isinstance(entry, Tensor | Mapping) and len(entry) > 0)
        return _hidden_state(next(found, None), layer)
    if isinstance(value, Tensor):
        return value
    raise CompatibilityError(f"{type(layer).__name__} takes or gives no tensor that could be a hidden state.")


def _holds_convolutions(layer: nn.Module) -> bool:
    """Between such layers, maps have their channels first; between others (SAM's) last."""
    return any(isinstance(module, nn.Conv2d) for module in layer.modules())


def _seen(state: Tensor) -> _Seen:
    return state, _version(state)


def _version(state: Tensor) -> int:
    """Rises with every change in place; tensors of inference mode do not count theirs."""
    return 0 if state.is_inference() else state._version
