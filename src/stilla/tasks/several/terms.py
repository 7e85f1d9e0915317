"""Terms of one of several tasks: any objective of logits, on the rows of that task alone and divided by what it counts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError, all_at_once, all_of, did_you_mean, one_of
from stilla.objectives.base import (
    FeatureObjective,
    LayerMap,
    Objective,
    RowObjective,
    StepFeatureObjective,
    StepObjective,
    Term,
)
from stilla.rows import row_loss
from stilla.signals import Dense, Dims, Form, Signals
from stilla.tasks.base import Task


@dataclass(frozen=True)
class _Rows:
    """One task's rows: what both models say of them, their labels, and what each label counts."""

    logits: Float[Tensor, "rows classes"]
    teacher: Form | None
    labels: Tensor | None
    weights: Tensor | None = None


class _Parted:
    """What both kinds of terms share: an objective, and the task it is of."""

    inner: Objective
    part: str
    classes: int

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        """Those of the objective, on this task's rows."""
        own = Dims(self.classes)
        return [f"{self.part}: {problem}" for problem in self.inner.unmade(own)
                or self.inner.problems(own, None if teacher is None else own, {})]

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        own = Dims(self.classes)
        self.inner.setup(own, None if teacher is None else own, {})

    def rows(self, student: Signals, teacher: Signals) -> _Rows | None:
        """None where the batch has none."""
        ours, theirs = student.parts.get(self.part), teacher.parts.get(self.part)
        if ours is None:
            return None
        assert isinstance(ours.logits, Dense)  # a head's
        logits = ours.logits.logits
        return _Rows(logits.to(torch.promote_types(logits.dtype, torch.float32)),
                     None if theirs is None else theirs.logits, ours.labels, ours.weights)


class OfPart(_Parted, FeatureObjective):
    """The sum over one task's rows of an objective that gives the loss of every row by itself."""

    inner: RowObjective

    def __init__(self, inner: RowObjective, part: str, classes: int) -> None:
        super().__init__()
        self.inner, self.part, self.classes = inner, part, classes
        self.needs_teacher = inner.needs_teacher  # type: ignore[misc]  # of the objective within, not of this class
        self.count = f"{part}/{inner.count}"

    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        rows = self.rows(student, teacher)
        if rows is None:
            return torch.zeros((), device=_device(student))
        loss, _ = row_loss(((self.inner, 1.0),), Dense(rows.logits), rows.teacher, rows.labels, progress,
                           weights=rows.weights)
        return loss


class OfPartOverSteps(_Parted, StepFeatureObjective):
    """The same of one that compares the rows of a step with each other: those of one task."""

    inner: StepObjective

    def __init__(self, inner: StepObjective, part: str, classes: int) -> None:
        super().__init__()
        self.inner, self.part, self.classes = inner, part, classes
        self.needs_teacher = inner.needs_teacher  # type: ignore[misc]
        self.count = f"{part}/{inner.count}"

    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        rows = self.rows(student, teacher)
        if rows is None:  # as many sums, of nothing
            none = torch.zeros(0, self.classes, device=_device(student))
            rows = _Rows(none, Dense(none), none.new_zeros(0, dtype=torch.int64))
        return self.inner.sums(rows.logits, rows.teacher, rows.labels, progress)

    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        return self.inner.loss(sums, progress)


def of_parts(terms: Sequence[Term], parts: Mapping[str, Task]) -> tuple[Term, ...]:
    """Every term for the task that it names, or for each.

    Raises:
        CompatibilityError: there is no such task, or an objective compares what a head does not have.
    """
    found, problems = list[Term](), list[str]()
    for term in terms:
        if isinstance(term.objective, OfPart | OfPartOverSteps):
            found.append(term)
        elif term.part is not None and term.part not in parts:
            problems.append(f"`{term.name}`: part: got {term.part!r}; expected {one_of(list(parts))}."
                            f"{did_you_mean(term.part, parts)}")
        elif not isinstance(term.objective, RowObjective | StepObjective):
            problems.append(f"`{term.name}` compares hidden states, vectors or weights, of which every task's teacher has "
                            "its own; only objectives of logits can be used for several tasks (labels, logits, dkd, dist)")
        else:
            for name in parts if term.part is None else [term.part]:
                found.append(_of_part(term, name, parts[name], alone=term.part is not None))
    if problems:
        raise all_at_once(problems, CompatibilityError)
    return tuple(found)


def idle(terms: Sequence[Term], parts: Mapping[str, Task]) -> list[str]:
    """Tasks of which no term is."""
    named = {term.part for term in terms}
    lacking = [name for name in parts if name not in named]
    if None in named or not lacking:
        return []
    return [f"no objective is of {all_of(lacking)}, so that nothing would be learnt there; name one, or leave `part` out of "
            "another"]


def _of_part(term: Term, name: str, task: Task, *, alone: bool) -> Term:
    # what is of every task is made once for each: some have weights of their own
    objective = term.objective if alone else copy.deepcopy(term.objective)
    assert isinstance(objective, RowObjective | StepObjective)
    kind = OfPart if isinstance(objective, RowObjective) else OfPartOverSteps
    made: Objective = kind(objective, name, task.row_classes())  # type: ignore[arg-type]  # the kind is the objective's
    return replace(term, objective=made, name=term.name if alone else f"{name}/{term.name}", part=name)


def _device(signals: Signals) -> torch.device:
    assert isinstance(signals.logits, Dense)
    return signals.logits.device
