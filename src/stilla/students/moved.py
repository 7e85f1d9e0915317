"""Weights of a student before its training: on the way to its teacher's, and those that stay what they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stilla.errors import CompatibilityError
from stilla.models.counterparts import Counterparts, counterparts
from stilla.models.parts import chosen
from stilla.recipe import Interpolate
from stilla.students.student import Student


@torch.no_grad()
def interpolate(student: Student, teacher: nn.Module, how: Interpolate, *, tokens: bool = True) -> Counterparts:
    """θ_S <- θ_S + share (θ_T - θ_S), in place, wherever both have a weight of one name and shape; says where.

    tokens: whether both number their tokens alike; if not, what has a row for each token stays.

    Raises:
        CompatibilityError: parts that match nothing, or have nothing in the teacher.
    """
    found = counterparts(student.model, teacher, student.origins, parts=how.parts, place="student.interpolate.parts",
                         tokens=tokens, frozen=True)
    for one in found.found:
        ours = student.model.get_parameter(one.name)
        ours.lerp_(one.value(ours), how.share)  # exactly the teacher's at 1
    return found


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """These parts are not trained any more; what shares their weights is not either.

    Raises:
        CompatibilityError: parts that match nothing, or nothing is left to be trained.
    """
    for name in chosen(model, parts, "student.freeze"):
        model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise CompatibilityError("student.freeze: nothing would be left to be trained; freeze less of it")
