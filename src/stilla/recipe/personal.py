"""Of a recipe: parts of a student for groups of its examples, which are trained when it is done."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from stilla.recipe.learning import ObjectiveSpec, Stage
from stilla.recipe.models import Dropout, Lora, Training
from stilla.recipe.section import EPOCHS, EXAMPLES, RATE, as_tuple

MOST = 1000
"""Bound of the parts of a student, each of which is a training."""


class Personal(Training):
    """Adapters of low rank for groups of examples (a segment, a language, a user), each trained from the finished student on
    its group's examples alone. Who has none is answered by the student itself. Needs peft."""

    by: str = Field(min_length=1)
    """The column whose values are the groups."""
    at_least: int = Field(30, ge=1, le=EXAMPLES)
    """Labelled training examples of a group that gets a part of its own; of fewer, the student answers."""
    most: int = Field(100, ge=1, le=MOST)
    """Groups that may get one, each of which is a training; with more, a run is refused."""
    lora: Lora = Field(default_factory=lambda: Lora(r=4))
    """Their rank, scale and places, as for `student.lora`."""
    epochs: float | None = Field(5.0, gt=0, le=EPOCHS)
    """Passes over a group's examples."""
    learning_rate: float | None = Field(1e-3, gt=0, le=RATE)
    """Peak learning rate."""
    dropout: Dropout = 0.0
    """As for a student."""
    objectives: Annotated[
        tuple[ObjectiveSpec, ...] | None, Field(min_length=1), BeforeValidator(as_tuple)] = None
    """The terms of the loss; by default those of the last stage of `distill`."""

    @field_validator("objectives")
    @classmethod
    def _something_to_learn(cls, objectives: tuple[ObjectiveSpec, ...] | None) -> tuple[ObjectiveSpec, ...] | None:
        return Stage(objectives=objectives).objectives
