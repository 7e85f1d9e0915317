"""The objectives, by the name that a recipe gives them. Adding one: a file in this folder and a line in the table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stilla.errors import RecipeError, did_you_mean, one_of
from stilla.recipe import ObjectiveSpec
from stilla.runtime.imports import import_path

if TYPE_CHECKING:
    from stilla.objectives.affinities import Affinities
    from stilla.objectives.base import Objective, Term
    from stilla.objectives.channels import Channels
    from stilla.objectives.contrastive import Contrastive
    from stilla.objectives.ctc import CTC
    from stilla.objectives.dist import DIST
    from stilla.objectives.dkd import DKD
    from stilla.objectives.edges import Edges
    from stilla.objectives.embedding import Embedding
    from stilla.objectives.frames import Frames
    from stilla.objectives.hidden import Hidden
    from stilla.objectives.interactive import Interactive
    from stilla.objectives.labels import Labels
    from stilla.objectives.listwise import Listwise
    from stilla.objectives.logits import Logits
    from stilla.objectives.maps import Maps
    from stilla.objectives.margins import Margins
    from stilla.objectives.masks import Masks
    from stilla.objectives.objects import Objects
    from stilla.objectives.pairwise import Pairwise
    from stilla.objectives.queries import Queries
    from stilla.objectives.ranking import Ranking
    from stilla.objectives.saliency import Saliency
    from stilla.objectives.segments import Segments
    from stilla.objectives.similarities import Similarities
    from stilla.objectives.spectrogram import Spectrogram
    from stilla.objectives.weights import Weights

__all__ = [
    "CTC", "DIST", "DKD", "KINDS", "Affinities", "Channels", "Contrastive", "Edges", "Embedding", "Frames", "Hidden",
    "Interactive", "Labels", "Listwise", "Logits", "Maps", "Margins", "Masks", "Objects", "Pairwise", "Queries", "Ranking",
    "Saliency", "Segments", "Similarities", "Spectrogram", "Term", "Weights", "find", "problems", "term",
]

KINDS: Mapping[str, str] = {
    "labels": "stilla.objectives.labels:Labels",
    "logits": "stilla.objectives.logits:Logits",
    "dkd": "stilla.objectives.dkd:DKD",
    "dist": "stilla.objectives.dist:DIST",
    "hidden": "stilla.objectives.hidden:Hidden",
    "maps": "stilla.objectives.maps:Maps",
    "saliency": "stilla.objectives.saliency:Saliency",
    "weights": "stilla.objectives.weights:Weights",
    "embedding": "stilla.objectives.embedding:Embedding",
    "similarities": "stilla.objectives.similarities:Similarities",
    "margins": "stilla.objectives.margins:Margins",
    "ranking": "stilla.objectives.ranking:Ranking",
    "contrastive": "stilla.objectives.contrastive:Contrastive",
    "interactive": "stilla.objectives.interactive:Interactive",
    "affinities": "stilla.objectives.affinities:Affinities",
    "channels": "stilla.objectives.channels:Channels",
    "pairwise": "stilla.objectives.pairwise:Pairwise",
    "ctc": "stilla.objectives.ctc:CTC",
    "listwise": "stilla.objectives.listwise:Listwise",
    "objects": "stilla.objectives.objects:Objects",
    "queries": "stilla.objectives.queries:Queries",
    "edges": "stilla.objectives.edges:Edges",
    "segments": "stilla.objectives.segments:Segments",
    "masks": "stilla.objectives.masks:Masks",
    "spectrogram": "stilla.objectives.spectrogram:Spectrogram",
    "frames": "stilla.objectives.frames:Frames",
}


def find(kind: str) -> type[Objective]:
    """The class behind a recipe's `kind`: a name of the table, or `package.module:Class`.

    Raises:
        RecipeError: no such name, no such module or class, or it is not an objective.
    """
    from stilla.objectives.base import Objective

    target = KINDS.get(kind, kind)
    if ":" not in target:
        raise RecipeError(f"kind: got {kind!r}; expected {one_of(sorted(KINDS))}, or package.module:Class."
                          f"{did_you_mean(kind, KINDS)}")
    try:
        found = import_path(target)
    except RecipeError as error:
        raise RecipeError(f"kind: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise RecipeError(f"kind: got {kind!r}, which is not a subclass of stilla.objectives.base.Objective")
    return found


def problems(spec: ObjectiveSpec) -> list[str]:
    """What is wrong with a recipe's term, as `option: got ...; expected ...`; empty if it can be built."""
    from pydantic import ValidationError

    from stilla.objectives.base import options_model

    try:
        cls = find(spec.kind)
        options = options_model(cls)(**spec.options)
        cls(**{name: getattr(options, name) for name in type(options).model_fields})
    except RecipeError as error:
        return [str(error)]
    except ValidationError as error:
        return [_in_words(one, cls) for one in error.errors()]
    return []


def term(spec: ObjectiveSpec) -> Term:
    """The term that a recipe means.

    Raises:
        RecipeError: see `problems`.
    """
    from stilla.objectives.base import Term, options_model

    wrong = problems(spec)
    if wrong:
        raise RecipeError("; ".join(wrong))
    cls = find(spec.kind)
    options = options_model(cls)(**spec.options)
    objective = cls(**{name: getattr(options, name) for name in type(options).model_fields})
    name = spec.name or "/".join([*([spec.part] if spec.part else []), spec.kind.rpartition(":")[2]])
    return Term(objective, spec.weight, name, spec.part)


def _in_words(error: Mapping[str, Any], cls: type[Objective]) -> str:
    from stilla.objectives.base import options_model
    from stilla.recipe.in_words import TYPES, shown

    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(options_model(cls).model_fields)
        return f"{where}: unknown option; {cls.__name__} takes {one_of(known)}.{did_you_mean(where, known)}"
    allowed = error.get("ctx", {}).get("expected")
    if allowed:
        choices = [one.strip(" '") for one in str(allowed).replace(" or ", ", ").split(",")]
        return f"{where}: got {error['input']!r}; expected {one_of(choices)}.{did_you_mean(error['input'], choices)}"
    if error["type"] in TYPES:
        return f"{where}: got {shown(error['input'])}; expected {TYPES[error['type']]}"
    words = error["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if words.startswith("got") else f"{where}: got {error['input']!r}; {words}"


def __getattr__(name: str) -> Any:
    """`stilla.objectives.Logits` without importing torch before it is asked for."""
    if name == "Term":
        from stilla.objectives.base import Term

        return Term
    for target in KINDS.values():
        module, _, cls = target.partition(":")
        if cls == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
