"""Of a recipe: a start of the student that several other tasks have made quick to adapt (Reptile)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from stilla.recipe.paths import PathName
from stilla.recipe.section import BATCH, EXAMPLES, RATE, STEPS, Section, as_tuple

MOST = 1_000
"""Bound of the tasks of a start, each of which has a model of its own in memory, and of those of a step."""


class Reptile(Section):
    """Before anything is distilled, the student's body learns other tasks a little at a time, each with a head of its own
    that is then left behind: body + rate (mean of what they make of it - body). Nichol et al. 2018, arXiv:1803.02999."""

    tasks: Annotated[tuple[PathName, ...], Field(min_length=2, max_length=MOST), BeforeValidator(as_tuple)]
    """Files or folders of labelled examples, one for each of the other tasks, with the columns of `data`. Their labels are
    their own."""
    steps: int = Field(100, ge=1, le=STEPS)
    """Of the body."""
    tasks_per_step: int = Field(4, ge=1, le=MOST)
    """So many are drawn for a step, by their number of examples."""
    examples: int = Field(64, ge=1, le=EXAMPLES)
    """Of a task, drawn anew for each step: about as many as the student will have to learn from."""
    inner_steps: int = Field(8, ge=1, le=STEPS)
    """Optimiser steps that a task gets from the body on, with a new head."""
    batch_size: int = Field(16, ge=1, le=BATCH)
    """Examples of such a step."""
    learning_rate: float | None = Field(None, gt=0, le=RATE)
    """Of such a step; by default that of the first stage of `distill`."""
    rate: float = Field(1.0, gt=0, le=1)
    """How much of the way the first step goes; falls evenly, to 0 after the last."""
