"""What a training has of its teacher's weights: those that terms compare, and steps towards them beside the optimiser's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import CompatibilityError
from stilla.models.counterparts import Counterpart, Counterparts, counterparts
from stilla.objectives.base import LayerMap, Term, WeightObjective
from stilla.recipe import Pull
from stilla.students import Student, automatic_layer_map


@dataclass(frozen=True)
class Anchored:
    """A student and the teacher whose weights it is held to. `tokens`: whether both number their tokens alike."""

    student: nn.Module | Student
    teacher: nn.Module | None
    tokens: bool = True

    @property
    def model(self) -> nn.Module:
        return self.student.model if isinstance(self.student, Student) else self.student

    def to(self, parts: Sequence[str] | None, place: str, *, frozen: bool = False) -> Counterparts:
        """What the parts of the student answer to. `frozen`: those too that are not trained.

        Raises:
            CompatibilityError: they answer to nothing, or the teacher is not here.
        """
        if self.teacher is None:
            raise CompatibilityError(f"{place}: needs the teacher's weights, and it is not here, only its answers; give the "
                                     "model itself")
        made = self.student if isinstance(self.student, Student) else \
            Student(self.student, automatic_layer_map(self.student, self.teacher))
        return counterparts(made.model, self.teacher, made.origins, made.slices, parts=parts, place=place,
                            tokens=self.tokens, frozen=frozen)

    def of_pull(self, pull: Pull | None, place: str = "pull.parts") -> dict[str, Counterparts]:
        """Of the steps beside the optimiser's, which move what is not trained, too."""
        return {} if pull is None else {"pull": self.to(pull.parts, place, frozen=True)}

    def of_terms(self, terms: Sequence[Term]) -> dict[str, Counterparts]:
        """Of the terms that compare weights, by name."""
        return {term.name: self.to(term.objective.parts, f"`{term.name}`") for term in terms
                if isinstance(term.objective, WeightObjective)}


def pairs(student: nn.Module, found: Sequence[Counterpart]) -> list[tuple[Tensor, Tensor]]:
    """The student's weights, and what they answer to."""
    return [(ours, one.value(ours)) for one in found for ours in (student.get_parameter(one.name),)]


class Pulling(TrainerCallback):
    """θ_S <- θ_S + share (θ_T - θ_S) after every so many optimiser steps."""

    def __init__(self, student: nn.Module, found: Counterparts, how: Pull) -> None:
        self.student = student
        self.found = found.found
        self.how = how

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.how.every == 0:
            for ours, theirs in pairs(self.student, self.found):
                ours.add_(self.how.share * (theirs - ours))


def spread_problems(terms: Sequence[Term], pull: Pull | None, spread: object) -> list[str]:
    """Why weights cannot be compared that no process has whole."""
    named = [f"`{term.name}`" for term in terms if isinstance(term.objective, WeightObjective)]
    named += [] if pull is None else ["pull"]
    return [] if spread is None else [f"{name}: needs the student's weights whole, and with `fsdp` or `deepspeed` no "
                                      "process has them; train without these, or leave it out" for name in named]


@dataclass(frozen=True)
class Held:
    """What of a training is held to its teacher's weights. terms: by name what they compare. callbacks: what pulls."""

    terms: Mapping[str, Counterparts]
    callbacks: tuple[Pulling, ...]
    described: tuple[str, ...]

    @classmethod
    def of(cls, anchored: Anchored, terms: Sequence[Term], pull: Pull | None) -> Held:
        """Raises:
            CompatibilityError: parts that match nothing, or answer to nothing.
        """
        by_term, pulled = anchored.of_terms(terms), anchored.of_pull(pull)
        lines = [f"{name}: held to the teacher's weights: {one.described(anchored.model)}"
                 for name, one in {**by_term, **pulled}.items()]
        return cls(by_term, tuple(Pulling(anchored.model, one, pull) for one in pulled.values() if pull), tuple(lines))


def layer_map_of(student: nn.Module | Student, teacher: object, stacks: bool) -> LayerMap | None:
    """Which of the teacher's layers the student's answer to, where hidden states are compared."""
    if isinstance(student, Student):
        return student.layer_map
    if stacks and isinstance(teacher, nn.Module):
        return automatic_layer_map(student, teacher)
    return None
