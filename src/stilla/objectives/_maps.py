"""Rows that are places in pictures, as maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import LogitObjective
from stilla.signals import Dense, Signals


def maps_of(
    objective: LogitObjective, student: Signals, teacher: Signals
) -> tuple[Float[Tensor, "pictures places classes"], Float[Tensor, "pictures places classes"]]:
    """Both models' logits, a picture at a time, in at least float32.

    Raises:
        CompatibilityError: rows are no places of pictures, or the teacher told a part of its distribution.
    """
    if student.grid is None or not isinstance(student.logits, Dense):
        raise CompatibilityError(f"{objective.described} compares the places of pictures, and this task's rows are none; it "
                                 "is for task: semantic-segmentation")
    said = student.logits.logits
    ours = said.to(torch.promote_types(said.dtype, torch.float32))
    theirs = objective.given(teacher.logits, ours).to(ours.device)
    places = student.grid[0] * student.grid[1]
    return ours.unflatten(0, (-1, places)), theirs.unflatten(0, (-1, places))
