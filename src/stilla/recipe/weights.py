"""Of a recipe: what of a teacher's weights is carried over into a student's, at its start and along its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from stilla.recipe.section import STEPS, Section, Strings

Part = Annotated[float, Field(gt=0, le=1)]


class Interpolate(Section):
    """Where a student starts: its own weights + share (its teacher's - its own), wherever both have one of the same name and
    shape."""

    share: Part
    """From above 0 to 1, where they are the teacher's."""
    units: Literal["first", "importance"] | None = None
    """Of a wider teacher of the same architecture, which of its neurons, heads and numbers of the hidden state a narrower
    student takes over: the `first`, or those that matter most for the loss (`importance`), as `width` chooses them. By
    default none: only weights of the same shape."""
    parts: Strings | None = None
    """Of which weights: `embeddings`, `layers`, `layers.0-2`, `head`, or names of the model's own, with `*` for anything; by
    default all."""


class Pull(Section):
    """A step towards the teacher's weights, beside those of the optimiser: weights + share (the teacher's - weights)."""

    share: Part
    """How much of the way."""
    every: int = Field(1, ge=1, le=STEPS)
    """After every so many optimiser steps."""
    parts: Strings | None = None
    """Of which weights, as `student.interpolate.parts`; by default all."""


def _long_form(value: object) -> object:
    return {"share": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Interpolated = Annotated[Interpolate, BeforeValidator(_long_form, json_schema_input_type=Part | Interpolate)]
"""A share is the short form of the same share of all weights."""
Pulled = Annotated[Pull, BeforeValidator(_long_form, json_schema_input_type=Part | Pull)]
"""Likewise, after every step."""
