"""Which fields of a recipe name files and folders: those whose type is `PathName`. Read, they are what a person means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator

from stilla.errors import RecipeError
from stilla.recipe.section import Section
from stilla.runtime.paths import meant

OF_A_TRAINER = ("deepspeed", "fsdp_config")
"""Fields of `transformers.TrainingArguments` that take a file's path, or what stands in it."""


def _as_meant(text: str) -> str:
    try:
        return meant(text)
    except RecipeError as error:
        raise ValueError(str(error)) from error


_MEANT = AfterValidator(_as_meant)
PathName = Annotated[str, _MEANT]
"""A path, or a name of something that is no file here; `~` is replaced."""


def _trainer_as_meant(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_meant(value) if name in OF_A_TRAINER and isinstance(value, str) and value.startswith("~") else value
            for name, value in fields.items()}


TrainerFields = Annotated[Mapping[str, Any], AfterValidator(_trainer_as_meant)]
"""Fields of `transformers.TrainingArguments`."""

Place = tuple[str | int, ...]


def named(section: Section) -> Iterator[tuple[Place, str]]:
    """Every path (or name) in a recipe with its place: `("data", "train"), "reviews.csv"`."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from (((name, *place), path) for place, path in named(value))
        elif isinstance(value, tuple):
            yield from (((name, number, *place), path) for number, one in enumerate(value) if isinstance(one, Section)
                        for place, path in named(one))
            if _is_path((*field.metadata, field.annotation)):
                yield from (((name, number), path) for number, path in enumerate(value) if isinstance(path, str))
        elif isinstance(value, str) and _is_path((*field.metadata, field.annotation)):
            yield (name,), value
        elif isinstance(value, Mapping) and any(isinstance(one, Section) for one in value.values()):
            yield from (((name, key, *place), path) for key, one in value.items() if isinstance(one, Section)
                        for place, path in named(one))
            yield from (((name, key), path) for key, path in value.items()
                        if isinstance(path, str) and _is_path((field.annotation,)))
        elif isinstance(value, Mapping) and _is_path((field.annotation,)):
            yield from (((name, key), path) for key, path in value.items() if isinstance(path, str))
        elif name == "trainer" and isinstance(value, Mapping):
            yield from (((name, key), value[key]) for key in OF_A_TRAINER
                        if isinstance(value.get(key), str) and value[key].endswith((".json", ".yaml", ".yml")))


def _is_path(kinds: tuple[Any, ...]) -> bool:
    return any(kind is _MEANT or _is_path(get_args(kind)) for kind in kinds)
