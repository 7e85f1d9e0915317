"""A student that exists already: loaded by its task from a folder, a hub id or a checkpoint."""

from __future__ import annotations

from torch import nn

from stilla.students.student import Student, automatic_layer_map


def given(model: nn.Module, teacher: nn.Module) -> Student:
    """`model` as it is, with the automatic layer map wherever its stacks correspond to the teacher's."""
    return Student(model, automatic_layer_map(model, teacher))
