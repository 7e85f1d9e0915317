"""Models over items: read from a folder, or made of a config of any decoder or encoder of transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from stilla.errors import CompatibilityError, all_at_once, did_you_mean
from stilla.models.configs import asked_for
from stilla.recipe import ModelSource
from stilla.tasks.language.models import language_model, refuse_looking_ahead
from stilla.tasks.language.vocabulary import outputs_of
from stilla.tasks.recommendation.catalogue import Catalogue

_FEWEST = 16
"""Positions that a model has at least: so many are looked at to see what it does to them."""

_OF_ROBERTA = " (families of RoBERTa count positions from the number of the padding, and cannot)"

_OF_ITEMS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "mask_token_id", "cls_token_id", "sep_token_id")
"""Fields that follow from the items."""


def made(source: ModelSource, catalogue: Catalogue) -> PreTrainedModel:
    """A model of random weights, of the architecture and the config that a recipe names.

    Raises:
        CompatibilityError: no such architecture, fields that it does not have, or that follow from the items.
    """
    auto = _auto(catalogue)
    if source.model not in CONFIG_MAPPING:
        raise CompatibilityError(f"teacher.model: {source.model!r} is no architecture of transformers, whose sizes "
                                 "teacher.config could say; expected one like llama or bert."
                                 f"{did_you_mean(source.model, CONFIG_MAPPING)}")
    kind = CONFIG_MAPPING[source.model]
    if kind not in auto._model_mapping:
        raise CompatibilityError(f"teacher.model: transformers has no {auto.__name__.removeprefix('AutoModelFor')} head for "
                                 f"{source.model}. {_instead(catalogue)}")
    head = auto._model_mapping[kind]
    fields = _fields(kind, dict(source.config or {}), catalogue, asked_for(head if isinstance(head, type) else head[0]))
    try:
        model: PreTrainedModel = auto.from_config(kind(**fields), dtype=torch.float32).eval()
    except Exception as error:  # each class refuses a config in its own way
        said = " ".join(str(error).split())
        raise CompatibilityError(f"teacher.config: no {source.model} over {len(catalogue):,} items can be built with it: "
                                 f"{said}{_OF_ROBERTA if 'adding' in said else ''}") from error
    check(model, catalogue, source.model)
    if not catalogue.masked and _looks_ahead(model):
        raise CompatibilityError(f"teacher.model: {source.model!r} sees the items that it has to foretell. "
                                 f"{_instead(catalogue)}; some encoders are decoders with teacher.config.is_decoder: true")
    return model


def read(source: ModelSource, catalogue: Catalogue, *, labelled: bool) -> PreTrainedModel:
    """The model of a folder.

    Raises:
        CompatibilityError: as for `language_model`; its outputs are not those of the items.
    """
    model = language_model(source, _auto(catalogue), labelled=labelled)
    check(model, catalogue, source.model)
    return model


def check(model: PreTrainedModel, catalogue: Catalogue, name: str) -> None:
    """Raise unless it has an embedding for every item and reads as many as it is said to; from left to right, if it
    has to foretell what comes next.

    Raises:
        CompatibilityError: it has not, or does not.
    """
    known = outputs_of(model)
    if known < catalogue.outputs:
        raise CompatibilityError(f"{name!r} knows {known:,} numbers, and its items with what stands behind them are "
                                 f"{catalogue.outputs:,}: they do not belong together")
    ids = torch.arange(catalogue.max_length).remainder(len(catalogue))[None].to(model.device)
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:
        raise CompatibilityError(f"{name!r} cannot read {catalogue.max_length} items: {str(error).splitlines()[0]}. Take a "
                                 f"smaller data.max_length, or another architecture{_OF_ROBERTA}") from error
    if not catalogue.masked:
        refuse_looking_ahead(model, name)


def _auto(catalogue: Catalogue) -> Any:
    return AutoModelForMaskedLM if catalogue.masked else AutoModelForCausalLM


def _instead(catalogue: Catalogue) -> str:
    if catalogue.masked:
        return "Take one that reads both sides (bert), or leave data.mask out"
    return "Take one that reads from left to right (llama, gpt2), or say data.mask: 0.2"


def _looks_ahead(model: PreTrainedModel) -> bool:
    """Whether anything at all of what comes later changes what is said before: random weights change it by little."""
    ids = torch.arange(8)[None].remainder(outputs_of(model))
    with torch.no_grad():
        one, two = (model(input_ids=torch.cat([ids, later], 1)).logits[:, :8] for later in (ids, ids.flip(1)))
    return bool((one - two).abs().max() > 1e-6 * one.abs().max())


def _fields(kind: Any, given: dict[str, Any], catalogue: Catalogue, more: frozenset[str]) -> dict[str, Any]:
    usual = kind()
    known = {*(name for name in vars(usual) if not name.startswith("_")), *kind.attribute_map, *more}
    problems = [f"teacher.config.{name}: follows from the items; leave it out" for name in given if name in _OF_ITEMS]
    problems += [f"teacher.config.{name}: {kind.__name__} has no such field.{did_you_mean(name, known)}"
                 for name in given if name not in known and name not in _OF_ITEMS]
    if problems:
        raise all_at_once(problems, CompatibilityError)
    fields = {**given, "vocab_size": catalogue.outputs, "pad_token_id": catalogue.pad_token_id,
              **{name: None for name in ("bos_token_id", "eos_token_id") if name in known}}
    positions = kind.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    if positions in known and not {positions, "max_position_embeddings"} & given.keys():
        fields[positions] = max(catalogue.max_length, _FEWEST)
    return fields
