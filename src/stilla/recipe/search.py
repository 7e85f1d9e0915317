"""Of a recipe: which values of which fields a search tries, on what it goes, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, WithJsonSchema, model_validator

from stilla.errors import all_of, short
from stilla.recipe.section import Section

TRIALS = 20
"""Trials where neither their number nor a time is said."""


class Range(Section):
    """Numbers between two: whole ones where the field takes only such."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether to draw evenly over orders of magnitude, as rates want it."""
    step: int | float | None = Field(None, gt=0)
    """Only every so many, counted from `low`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"got low {self.low:g} and high {self.high:g}; expected low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"got low {self.low:g} with log; expected a number above 0")
        if self.log and self.step is not None:
            raise ValueError("got log and step; expected one of them: steps are not even over orders of magnitude")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"got step {self.step:g}; expected at most {self.high - self.low:g}, from low to high")
        return self


Choices = tuple[Any, ...]
Values = Range | Choices
"""What a search tries of a field."""

_EXPECTED = "expected a list of values ([2, 3, 4]), or a range ({low: 1e-5, high: 1e-3, log: true})"


def _as_values(value: object) -> Values:
    if isinstance(value, Range):
        return value
    if isinstance(value, Mapping):
        try:
            return Range.model_validate(dict(value))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            words = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{place}: {words}; {_EXPECTED}" if place else words) from error
    if not isinstance(value, list | tuple):
        raise ValueError(f"got {short(repr(value), 80)}; {_EXPECTED}")
    said = [json.dumps(one, sort_keys=True, default=str) for one in value]
    if len(said) < 2:
        raise ValueError(f"got {short(repr(list(value)), 80)}, which leaves nothing to choose; {_EXPECTED}")
    if twice := sorted({one for one in said if said.count(one) > 1}):
        raise ValueError(f"got {short(all_of(twice), 80)} twice; expected every value once")
    return tuple(value)


def _plain(values: Values) -> Any:
    return values.model_dump(mode="json", exclude_none=True) if isinstance(values, Range) else list(values)


_RANGE = {"type": "object", "required": ["low", "high"], "additionalProperties": False, "properties": {
    "low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean"}, "step": {"type": "number"}}}
_Tried = Annotated[Any, BeforeValidator(_as_values), PlainSerializer(_plain),
                   WithJsonSchema({"anyOf": [_RANGE, {"type": "array", "minItems": 2}]})]


class Until(Section):
    """What ends a search as soon as a trial has reached it, on validation data."""

    retention: float | None = Field(None, gt=0, le=10)
    """So much of the teacher's quality: `0.98`."""
    quality: float | None = Field(None, ge=-1e12, le=1e12)
    """This value of the metric that the search goes by, or a better one."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.retention is None) == (self.quality is None):
            raise ValueError("expected one of {retention: 0.98} or {quality: 0.9}")
        return self


class Search(Section):
    """Values that are tried for fields of this recipe (`stilla search`), judged on validation data alone."""

    over: Annotated[Mapping[str, _Tried], Field(min_length=1, max_length=100)]
    """Fields by their paths, and what to try: a list, `{student.layers: [2, 3, 4]}`, or a range,
    `{distill.learning_rate: {low: 1e-5, high: 1e-3, log: true}}`."""
    trials: int | None = Field(None, ge=1, le=100_000)
    """How many at most; by default 20 where `minutes` says nothing either."""
    minutes: float | None = Field(None, gt=0, le=10_000_000)
    """No trial begins after all of them together took so long, over interruptions and over all processes that share them."""
    patience: int | None = Field(None, ge=1, le=100_000)
    """End after so many trials in a row of which none was better than the best before."""
    until: Until | None = None
    """End as soon as this is reached: `{retention: 0.98}` or `{quality: 0.9}`."""
    seeds: int = Field(1, ge=1, le=1000)
    """Students that each trial trains, from as many seeds; it is judged by their mean. Where the first lie behind the best
    trial beyond noise, the others are left out."""

    @property
    def most(self) -> int | None:
        """Trials at most; None where only the time is limited."""
        return TRIALS if self.trials is None and self.minutes is None else self.trials
