"""Weights of a student before its training: on the way to its teacher's, and those that stay what they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stilla.errors import CompatibilityError
from stilla.models.counterparts import Names, counterparts
from stilla.models.parts import chosen
from stilla.models.slices import Slices
from stilla.recipe import Interpolate
from stilla.students.student import Student
from stilla.students.towards import Towards
from stilla.students.width import Cut, first_units


def interpolate(
    student: Student, teacher: nn.Module, how: Interpolate, *, tokens: bool = True, cut: Cut | None = None
) -> str:
    """θ_S <- θ_S + share (θ_T - θ_S), in place, wherever both have a weight of one name and shape, or the student has some
    units of the teacher's (`how.units`); says where, in words.

    tokens: whether both number their tokens alike; if not, what has a row for each token stays. cut: which units were
    measured to matter; else the first.

    Raises:
        CompatibilityError: parts that match nothing, or have nothing in the teacher; of units, also why.
    """
    slices, reasons = Slices(), list[str]()
    if how.units is not None:
        towards = Towards(student, teacher)
        kept, reasons = (cut or towards.cut(first_units)).slices, towards.reasons
        names = Names(student.model, teacher, student.origins)
        slices = {name: axes for name, _ in student.model.named_parameters() if (axes := kept.get(names.teachers(name)))}
    why = f" ({'; '.join(reasons)})" if reasons else ""
    try:
        found = counterparts(student.model, teacher, student.origins, slices, parts=how.parts,
                             place="student.interpolate.parts", tokens=tokens, frozen=True)
    except CompatibilityError as error:
        raise CompatibilityError(f"{error}{why}") from error
    with torch.no_grad():
        for one in found.found:
            ours = student.model.get_parameter(one.name)
            ours.lerp_(one.value(ours), how.share)  # exactly the teacher's at 1
    return f"{found.described(student.model)}{why if found.lacking else ''}"


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """These parts are not trained any more; what shares their weights is not either.

    Raises:
        CompatibilityError: parts that match nothing, or nothing is left to be trained.
    """
    for name in chosen(model, parts, "student.freeze"):
        model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise CompatibilityError("student.freeze: nothing would be left to be trained; freeze less of it")
