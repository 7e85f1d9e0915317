"""Of a recipe: how much of its teacher's width a student keeps."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from stilla.recipe.section import EXAMPLES, Section

UNITS = 10_000_000
"""Bound of what is counted in neurons, heads and numbers of a hidden state."""
EXAMPLES_OF_IMPORTANCE = 256
Share = Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=2, le=UNITS)]


class Width(Section):
    """How much of its width every kept layer keeps: a share, `0.5`, or so many, `1024`. What stays was measured to matter
    most."""

    ffn: Share = 1.0
    """Neurons of the feed-forward blocks."""
    heads: Share = 1.0
    """Heads of attention, each whole."""
    hidden: Share = 1.0
    """Numbers of the hidden state, which runs through all layers."""
    rounds: int = Field(4, ge=1, le=1_000)
    """In how many rounds it is cut: after each, what is left is measured anew."""
    examples: int = Field(EXAMPLES_OF_IMPORTANCE, ge=1, le=EXAMPLES)
    """Training examples by which it is measured what matters."""

    def hidden_of(self, whole: int) -> float:
        """How many numbers of a hidden state are asked for, of so many."""
        return self.hidden * whole if self.hidden <= 1 else self.hidden

    @model_validator(mode="after")
    def _something(self) -> Width:
        if self.ffn == self.heads == self.hidden == 1:
            raise ValueError("nothing is cut: give ffn, heads or hidden a share below 1, or leave width out")
        return self


def of_all_kinds(value: object) -> object:
    """A share alone is the same share of all kinds; anything else stays what it is."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        return value
    return {"ffn": value, "heads": value, "hidden": value}


def _long_form(value: object) -> object:
    long = of_all_kinds(value)
    if isinstance(long, int | float) and not isinstance(long, bool):
        raise ValueError(f"got {value!r}; expected a share, above 0 and up to 1, or {{ffn: 1024}}: only of one kind can "
                         "there be so many")
    return long


Narrower = Annotated[Width, BeforeValidator(
    _long_form, json_schema_input_type=Annotated[float, Field(gt=0, le=1)] | Width)]
"""A share is the short form of the same share of all kinds."""
