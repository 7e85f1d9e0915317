"""Models of a person's own, `package.module:callable`, in the shape that the rest expects of a model."""

from __future__ import annotations

import inspect
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from stilla.errors import CompatibilityError, all_of
from stilla.recipe import ModelSource
from stilla.runtime.imports import import_path

logger = logging.getLogger(__name__)

_MAIN = ("input_ids", "pixel_values", "input_values", "input_features")
_WRAPPED = ("state_dict", "model_state_dict", "model")  # what training scripts store a state dict under


class ImportedModel(nn.Module):
    """Calls `model` with the inputs that it takes by name, or else with the main one, and names its logits.

    `config` says the labels in the same words as a Hugging Face model's. `axes`: of its logits.
    """

    def __init__(self, model: nn.Module, config: PreTrainedConfig, axes: int = 2) -> None:
        super().__init__()
        self.axes = axes
        self.model = model
        self.config = config
        parameters = inspect.signature(model.forward).parameters.values()
        self.takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        self.takes = frozenset(
            one.name for one in parameters if one.kind is not inspect.Parameter.POSITIONAL_ONLY
        )

    def takes_input(self, name: str) -> bool:
        return self.takes_all or name in self.takes

    def forward(self, **inputs: Tensor) -> SequenceClassifierOutput:
        main = next(name for name in _MAIN if name in inputs)
        named = {name: value for name, value in inputs.items() if self.takes_input(name)}
        positional = () if main in named else (inputs[main],)
        return SequenceClassifierOutput(logits=_logits(self.model(*positional, **named), self.axes))


def _logits(outputs: Any, axes: int) -> Tensor:
    if isinstance(outputs, Mapping):
        outputs = outputs["logits"]
    elif isinstance(outputs, list | tuple):
        outputs = outputs[0]
    logits = outputs if isinstance(outputs, Tensor) else outputs.logits
    if not isinstance(logits, Tensor) or logits.dim() != axes:
        wanted = {2: "(batch, labels)", 3: "(batch, positions, labels)"}.get(axes, "(batch, labels, height, width)")
        raise CompatibilityError(f"the model's logits are {_shape(logits)}; expected {wanted}.")
    return logits


def imported(source: ModelSource, config: PreTrainedConfig, axes: int = 2) -> ImportedModel:
    """Call what the import path names, with `num_labels` if it takes that, and fill in the weights.

    Raises:
        CompatibilityError: it gives no module, or the weights are not exactly the module's.
        RecipeError: nothing to import there.
    """
    make = import_path(source.model)
    if not callable(make):
        raise CompatibilityError(f"{source.model!r} is {type(make).__name__}; expected a function or class "
                                 "that returns an nn.Module.")
    takes_labels = "num_labels" in inspect.signature(make).parameters
    model = make(num_labels=config.num_labels) if takes_labels else make()
    if not isinstance(model, nn.Module):
        raise CompatibilityError(f"{source.model!r} returned {type(model).__name__}; expected an nn.Module.")
    if source.weights is not None:
        _fill(model, Path(source.weights).expanduser(), source.model)
    return ImportedModel(model, config, axes)


def check_answers(
    model: PreTrainedModel | ImportedModel, inputs: Mapping[str, Tensor], source: str
) -> None:
    """One forward, to see what fails and count the outputs before anything is trained.

    Raises:
        CompatibilityError: it fails, or gives another number of outputs than there are labels.
    """
    masked = not isinstance(model, ImportedModel) or model.takes_input("attention_mask")
    if "attention_mask" in inputs and not masked:
        logger.warning("%s takes no attention_mask: it must know padding by its token", source)
    training = model.training
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        with torch.no_grad():
            logits = model.eval()(**cast)["logits"]
    except CompatibilityError:
        raise
    except Exception as error:  # whatever a model of a person's own raises
        shapes = all_of([f"{name} {tuple(value.shape)}" for name, value in inputs.items()])
        raise CompatibilityError(f"{source}: its forward fails on {shapes}: {error}") from error
    finally:
        model.train(training)
    labels = len(model.config.id2label)
    if logits.shape[-1] != labels:
        raise CompatibilityError(
            f"{source} gives {logits.shape[-1]} outputs, the data have {labels} labels. Let "
            "it take `num_labels`, or give the data and data.labels that it was made for."
        )


def _fill(model: nn.Module, path: Path, source: str) -> None:
    if not path.is_file():
        raise CompatibilityError(f"weights: {str(path)!r}: no such file.")
    state = _state(path)
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    problems = [f"{what} {len(names)}: {all_of(names[:5])}{' ...' if len(names) > 5 else ''}"
                for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
    problems += [f"{name} is {_shape(state[name])}, the model's {_shape(own[name])}" for name in other[:5]]
    if problems:
        raise CompatibilityError(f"weights: {str(path)!r} do not fit {source!r}: {'; '.join(problems)}.")
    model.load_state_dict(state)


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CompatibilityError(
            f"weights: {str(path)!r} holds more than tensors, and reading that could run code. Write "
            "torch.save(model.state_dict(), path), or a safetensors file, where you trust it."
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise CompatibilityError(f"weights: {str(path)!r} cannot be read: {error}") from error
    inside = [stored.get(name) for name in _WRAPPED] if isinstance(stored, Mapping) else []
    state = next((one for one in inside if isinstance(one, Mapping)), stored)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CompatibilityError(f"weights: {str(path)!r} is no state dict; expected "
                                 "torch.save(model.state_dict(), path).")
    if state and all(name.startswith("module.") for name in state):  # DistributedDataParallel's
        return {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
