"""Of a recipe: a teacher that is adapted to its student while that learns (MetaDistil)."""

from __future__ import annotations

from pydantic import Field

from stilla.recipe.section import BATCH, RATE, Section


class Adapt(Section):
    """Before every step of the student, its teacher goes a step towards what would lower the loss of the student, one step
    on, on labelled examples that the student never learns from: the quiz. Zhou et al. 2022, arXiv:2106.04570."""

    learning_rate: float = Field(1e-5, gt=0, le=RATE)
    """Of the teacher's steps, which are Adam's."""
    quiz: float = Field(0.1, gt=0, lt=1)
    """Share of the labelled training examples that are the quiz."""
    batch_size: int = Field(32, ge=1, le=BATCH)
    """Examples of the quiz that a step of the teacher looks at."""
    pilot_rate: float | None = Field(None, gt=0, le=RATE)
    """Of the plain gradient step that is tried on the student first; by default the student's peak learning rate."""
