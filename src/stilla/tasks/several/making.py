"""The models of several tasks: teachers side by side, an encoder with a head for each, loaded or made of one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from stilla.errors import CompatibilityError, all_at_once, all_of
from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded, Task
from stilla.tasks.several.model import SeveralModel, Teachers, body_of, labels_of
from stilla.tasks.several.processors import Processors
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.text.tokens import tokenizer_for

HEADS: Mapping[str, Any] = {"text-classification": AutoModelForSequenceClassification,
                            "token-classification": AutoModelForTokenClassification}


def side_by_side(
    parts: Mapping[str, Task], source_of: Callable[[str], ModelSource], source: ModelSource, *, labelled: bool
) -> Loaded:
    """A teacher for every task, each its own model; to be trained, an encoder with a new head for each.

    Raises:
        CompatibilityError: some cannot be loaded, by the names of their tasks.
    """
    models: dict[str, Loaded] = {}
    problems: list[str] = []
    for name, task in parts.items():
        try:
            models[name] = task.load(source_of(name), labelled=labelled)
        except CompatibilityError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise all_at_once(problems, CompatibilityError)
    whole = {name: transformer(one) for name, one in models.items()}
    processors = Processors({name: one.processor for name, one in models.items()})
    first = next(iter(whole.values()))
    if labelled:
        return Loaded(Teachers(whole, first.config), processors, source.model)
    shared = Processors(dict.fromkeys(whole, next(iter(processors.values()))))
    return Loaded(SeveralModel.sharing(whole, body_of(first)), shared, source.model)


def saved(parts: Mapping[str, Task], source: ModelSource) -> Loaded:
    """A model of several heads from its folder.

    Raises:
        CompatibilityError: it has other heads, or other labels.
    """
    model = SeveralModel.from_pretrained(source.model, local_files_only=True, use_safetensors=True)
    if lacking := [name for name in parts if name not in model.config.heads]:
        raise CompatibilityError(f"{source.model!r} has heads for {all_of(list(model.config.heads))}, and none for "
                                 f"{all_of(lacking)}; a head is called as its task is in data.parts")
    if source.precision not in ("float32", "bfloat16"):
        raise CompatibilityError(f"precision: got {source.precision!r}; a model of several heads answers in float32 or "
                                 "bfloat16")
    if source.precision == "bfloat16":
        model.to(torch.bfloat16)
    places = {name: source.model_copy(update={"model": f"{source.model}/{name}", "processor": None}) for name in parts}
    processors = {name: tokenizer_for(place, model.alone(name)) for name, place in places.items()}
    return Loaded(model.eval(), Processors(processors), source.model)


def cut_from(
    parts: Mapping[str, Task], section: SeveralData, start: ModelSource | None, teacher: Loaded
) -> Loaded:
    """The encoder of the recipe's teacher (`start`) with a head for every task: its own teacher's, where it fits."""
    if isinstance(teacher.model, SeveralModel):
        return teacher
    assert isinstance(teacher.model, Teachers)
    own = next((name for name, part in section.parts.items() if part.teacher is None), None)
    if own is not None:
        main = head_of(teacher, own)
    else:  # nobody's teacher, and what the student is cut from
        assert start is not None
        main = parts[next(iter(parts))].load(start.model_copy(update={"precision": "float32"}), labelled=False)
    encoder = body_of(transformer(main))
    models = {name: _on(encoder, name, section.parts[name].task, transformer(head_of(teacher, name))) for name in parts}
    return Loaded(SeveralModel.sharing(models, encoder), Processors(dict.fromkeys(parts, main.processor)), main.source)


def head_of(model: Loaded, name: str) -> Loaded:
    """One task's model, with what makes its inputs."""
    assert isinstance(model.model, SeveralModel | Teachers)
    return Loaded(model.model.head(name), model.processor[name], model.source)


def alone(model: Loaded, name: str) -> Loaded:
    """The same as a model of its own, which can be asked by itself."""
    if isinstance(model.model, SeveralModel):
        return Loaded(model.model.alone(name), model.processor[name], model.source)
    return head_of(model, name)


def transformer(model: Loaded) -> PreTrainedModel:
    assert isinstance(model.model, PreTrainedModel)  # code was refused
    return model.model


def _on(encoder: PreTrainedModel, name: str, kind: str, teacher: PreTrainedModel) -> PreTrainedModel:
    """A teacher itself where its class is the encoder's; else the encoder's class for its task, with the same labels.

    Raises:
        CompatibilityError: there is no such class.
    """
    known = HEADS[kind]._model_mapping
    if type(encoder.config) not in known:
        raise CompatibilityError(f"{name}: transformers has no head for {kind} on a {encoder.config.model_type} model")
    if type(teacher.config) is type(encoder.config):
        return teacher
    config = type(encoder.config).from_dict({**encoder.config.to_dict(), **labels_of(teacher.config)})
    made: PreTrainedModel = known[type(encoder.config)]._from_config(config)
    return made
