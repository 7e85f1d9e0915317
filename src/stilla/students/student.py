"""What a student is: a model, and which teacher layer each of its layers answers to."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from stilla.models.slices import Slices
from stilla.models.stacks import LayerStack, find_stacks

LayerMap = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Student:
    """model: on its own, sharing no tensor with the teacher.

    layer_map: per stack, for every student layer the teacher layer (from 0) whose output its own should
    resemble;
        empty where nothing is known.

    copied: per stack, for every student layer the teacher layer that its weights came from; where nothing was copied, the one
        that it answers to. slices: of a narrower student, by tensor and axis what it kept of its teacher's. moved: how much
        of it was moved towards its teacher's weights before any training, in words.
    """

    model: nn.Module
    layer_map: LayerMap
    copied: LayerMap = field(default_factory=dict)
    slices: Slices = field(default_factory=dict)
    moved: str = ""

    @property
    def origins(self) -> LayerMap:
        """For every layer the teacher's whose weights its own are to be compared with."""
        return self.copied or self.layer_map


def automatic_layer_map(student_model: nn.Module, teacher_model: nn.Module) -> LayerMap:
    """A map for two models that were built apart: evenly spaced, the last layer answers to the last.

    Student layer j of m answers to teacher layer ceil((j + 1) n / m) - 1 (TinyBERT's uniform map, Jiao et al.
    2020, arXiv:1909.10351, sec. 4.2, where m divides n). Stages are mapped one by one. A stack that only one
    of the two has, or whose stages differ in number, is left out; models outside Hugging Face give {}.
    """
    teacher_stacks = {stack.name: stack for stack in find_stacks(teacher_model)}
    layer_map: LayerMap = {}
    for stack in find_stacks(student_model):
        other = teacher_stacks.get(stack.name)
        if other is not None and len(other.depths) == len(stack.depths):
            layer_map[stack.name] = _evenly_spaced(stack, other)
    return layer_map


def _evenly_spaced(student: LayerStack, teacher: LayerStack) -> tuple[int, ...]:
    answers: list[int] = []
    offset = 0
    for m, n in zip(student.depths, teacher.depths, strict=True):
        answers += [offset + -(-(j + 1) * n // m) - 1 for j in range(m)]
        offset += n
    return tuple(answers)
