"""What the sections of a recipe are made of: frozen models, and values that have a short form."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from stilla.errors import RecipeError
from stilla.recipe.schedule import Schedule, schedule

STEPS = 100_000_000
"""Bound of what is counted in optimiser steps."""
EPOCHS = 100_000
EXAMPLES = 10**12
"""Bound of what is counted in examples of the data."""
BATCH = 100_000
"""Examples or texts that are worked on at a time: far above what memory holds, which only `check` can know."""
TOKENS = 10_000_000
"""Bound of what is counted in tokens of a text."""
WEIGHT = 1_000_000.0
"""The largest weight of an objective; the largest that a paper used is 30,000."""
TEMPERATURE = 10_000.0
"""Above, every distribution is the uniform one, to the last digit."""
RATE = 10.0
"""The largest learning rate, and the largest weight decay."""
BEAMS, LAYERS = 1_000, 10_000
SEED = 2**31 - 1
"""The largest: NumPy takes 32 bits, and further seeds are counted up from the first."""


class Section(BaseModel):
    """A frozen part of a recipe: unknown keys and wrong types are errors, nothing is guessed.

    Every number has a least and a largest value: what is beyond cannot be meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)


def _as_schedule(value: object) -> Schedule:
    try:
        return schedule(value)  # type: ignore[arg-type]
    except RecipeError as error:
        raise ValueError(str(error)) from error


_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_SCHEDULE_SCHEMA = {"anyOf": [{"type": "number"}] + [
    {"type": "object", "properties": {shape: numbers}, "required": [shape], "additionalProperties": False}
    for shape, numbers in (("linear", _PAIR), ("cosine", _PAIR), ("steps", {"type": "array", "items": _PAIR}))
]}
Scheduled = Annotated[
    Any,
    BeforeValidator(_as_schedule),
    PlainSerializer(lambda value: value.plain()),
    WithJsonSchema(_SCHEDULE_SCHEMA),
]
"""A number or a schedule over training; always a `Schedule` once read."""
ScheduledOrNone = Annotated[
    Any,
    BeforeValidator(lambda value: None if value is None else _as_schedule(value)),
    PlainSerializer(lambda value: None if value is None else value.plain()),
    WithJsonSchema({"anyOf": [*_SCHEDULE_SCHEMA["anyOf"], {"type": "null"}]}),
]
"""The same where nothing may be said."""


def as_tuple(value: object) -> object:
    """Of a list, as YAML has it; anything else is left to be refused."""
    return tuple(value) if isinstance(value, list) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else
                                                     as_tuple(value))]
"""One name or a list of names; always a tuple once read."""
