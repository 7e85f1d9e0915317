"""Embedding models from folders and the hub: of sentence-transformers, or plain encoders of transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from stilla.data.hub import hub_reachable
from stilla.errors import CompatibilityError, all_of
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.signals import Pooling
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval import static, stored
from stilla.tasks.retrieval.layout import Layout, read_layout, weights_at
from stilla.tasks.retrieval.model import Shape, as_embedder
from stilla.tasks.retrieval.reading import Reader
from stilla.tasks.shared import loading
from stilla.tasks.shared.int8 import quantise
from stilla.tasks.text import tokens

logger = logging.getLogger(__name__)


def load(
    source: ModelSource, pooling: Pooling | None, normalised: bool | None, prompts: Mapping[str, str],
    like: Shape | None = None, *, trained: bool,
) -> Loaded:
    """A model whose forward gives a vector per text, and how it reads.

    pooling, normalised, prompts: what the recipe says. like: the teacher's, where a student is to be like it. trained: it is
    used as it is, in the precision that the recipe asks for.

    Raises:
        CompatibilityError: no encoder, no weights, a folder that says something else than the recipe, or nobody says how
            tokens become a vector.
    """
    if is_import_path(source.model):
        raise CompatibilityError(f"model: {source.model!r} is a model by import path, and how it makes vectors cannot be "
                                 "written down; expected a folder or a name of an encoder")
    where = {"revision": source.revision, "local_files_only": not hub_reachable()}
    if not source.is_stored and static.is_one(source.model, **where):
        return static.load(source, prompts, **where)
    config = loading.read_config(source)
    layout = read_layout(source.model, **where)
    if trained and layout.shape is None:
        _refuse_judges(config, source)
    shape = _shape(layout, pooling, normalised, like, source.model)
    model, info = loading.from_pretrained(source, config, _auto(config))
    _refuse_new(model, info["missing_keys"], source)
    weights = weights_at(source.model, layout.dense, **where)
    made = as_embedder(model, shape, weights)
    tokenizer = tokens.tokenizer_for(source, made)
    if layout.length is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, layout.length)
    if trained and source.precision == "bfloat16":
        made.to(torch.bfloat16)
    if trained and source.precision == "int8":
        quantise(made)
    reader = Reader(tokenizer, layout.prompts, layout.default, layout.lower)
    return Loaded(made, reader.with_prompts(prompts) if prompts else reader, source.model)


def finder(name: str, pooling: Pooling | None, normalised: bool | None) -> tuple[Loaded, Shape | None]:
    """Who looks for what is near in a teacher's place, and the shape of its vectors; None of a file of them. It reads with
    the prompts of its own folder. pooling, normalised: where that says nothing else.

    Raises:
        CompatibilityError: as for `load`.
    """
    source = ModelSource(model=name)
    if source.is_stored:
        return stored.load(source), None
    like = None if pooling is None else Shape(pooling, normalised is not False)
    found = load(source, None, None, {}, like, trained=True)
    model: Any = found.model
    return found, replace(model.shape, width=model.width)


def _shape(layout: Layout, pooling: Pooling | None, normalised: bool | None, like: Shape | None, name: str) -> Shape:
    """The folder's, else the recipe's, else the teacher's."""
    said = layout.shape
    if said is not None:
        for key, ours, theirs in (("pooling", pooling, said.pooling), ("normalise", normalised, said.normalised)):
            if ours is not None and ours != theirs:
                raise CompatibilityError(f"data.{key}: got {ours!r}, and {name!r} says {theirs!r}; leave it out")
    elif pooling is not None:
        said = Shape(pooling, True if normalised is None else normalised)
    elif like is not None:
        said = Shape(like.pooling, like.normalised, like.similarity)
    else:
        raise CompatibilityError(f"{name!r} does not say how its tokens become a vector (it has no modules.json). Set "
                                 "data.pooling: mean, first, last or max, and data.normalise")
    return said if like is None else replace(said, width=like.width)


def _refuse_judges(config: PreTrainedConfig, source: ModelSource) -> None:
    """A model that was trained to judge texts (a cross-encoder): pooled, its states are vectors that nobody has trained."""
    kinds = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    judges = [name for name in config.architectures or () if name.endswith(kinds)]
    if judges:
        raise CompatibilityError(
            f"{source.model!r} is a {judges[0]}, and has no modules.json: it judges what it reads, and what its tokens would "
            "be pooled to was never trained as a vector. Take a model of vectors as teacher, or a cross-encoder that gives "
            "one score of a query and a text")


def _auto(config: PreTrainedConfig) -> Any:
    """The encoder alone, also where a folder was written by it: T5's then says that it has no decoder, in T5's config."""
    alone = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    written = alone is not None and alone.__name__ in (config.architectures or ())
    return AutoModelForTextEncoding if config.is_encoder_decoder or written else AutoModel


def _refuse_new(model: PreTrainedModel, missing: set[str], source: ModelSource) -> None:
    """Random layers would show in nothing but the quality; a pooler is not used."""
    lost = sorted(name for name in missing if not name.startswith("pooler."))
    if lost:
        raise CompatibilityError(
            f"{source.model!r}: {len(lost)} weights of the encoder are missing from the checkpoint: {all_of(lost[:5])}"
            f"{' ...' if len(lost) > 5 else ''}. Its config.json does not describe its weights.")
