"""What a teacher is adapted by: the quiz, set apart from what the student learns from; and where there can be none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from stilla.errors import CompatibilityError, all_at_once
from stilla.objectives.base import (
    StepFeatureObjective,
    StepObjective,
    StepTableObjective,
    Term,
    WeightObjective,
)
from stilla.objectives.logits import Logits
from stilla.recipe import Adapt, Pull
from stilla.tasks.base import Prepared, Task
from stilla.training.reading import is_stream


def adapting_problems(terms: Sequence[Term], task: Task) -> list[str]:
    """Why a teacher cannot be adapted by these terms, in words; empty if it can."""
    if task.vocabulary:
        return ["adapt: losses over a vocabulary are made a few rows at a time, and no gradient of them reaches the teacher; "
                "leave it out"]
    found = [f"adapt: `{one.name}` {why}; leave one of the two out" for one in terms if (why := _why_not(one))]
    if not any(_follows(one) for one in terms):
        found.append("adapt: no term of the loss follows what the teacher says (`labels` asks it nothing, `hard` only "
                     "for the likeliest class); add `logits`, or leave adapt out")
    return found


def _why_not(one: Term) -> str:
    if isinstance(one.objective, WeightObjective):
        return "holds the student to weights that would change under it"
    if one.objective.needs_inputs:
        return "compares what answers rest on, which is derived twice already"
    if isinstance(one.objective, StepObjective | StepFeatureObjective | StepTableObjective):
        return "compares the rows of a whole step with each other, and of a step that is only tried each part is by itself"
    return ""


def _follows(one: Term) -> bool:
    """Whether the loss changes a little where the teacher's answer does."""
    hard = isinstance(one.objective, Logits) and one.objective.divergence == "hard"
    return one.objective.asks and not hard


def unadaptable(teacher: object, data: object, *, pull: Pull | None, spread: object) -> list[str]:
    """Why this teacher cannot be adapted on these data, whatever the terms."""
    found = []
    if not isinstance(teacher, nn.Module):
        found.append("adapt: the teacher is not here, only its answers; give the model itself")
    if is_stream(data):
        found.append("adapt: of a stream no quiz can be set apart; give a dataset with a length")
    if pull is not None:
        found.append("adapt: a pull goes towards weights that would change under it; leave one of the two out")
    if spread is not None:
        found.append("adapt: needs the student's weights whole, and with `fsdp` or `deepspeed` no process has them; train "
                     "without these, or leave it out")
    return found


def set_apart(
    data: Any, how: Adapt | None, terms: Sequence[Term], task: Task, seed: int
) -> tuple[Any, Prepared | None]:
    """What is learnt from, and the quiz, where a teacher is to be adapted.

    Raises:
        CompatibilityError: it cannot be by these terms, or on these data.
    """
    if how is None or not isinstance(data, Prepared):
        return data, None
    if wrong := adapting_problems(terms, task):
        raise all_at_once(wrong, CompatibilityError)
    return parted(data, how.quiz, seed)


def parted(data: Prepared, share: float, seed: int) -> tuple[Prepared, Prepared]:
    """The same examples in two: without the quiz, and the quiz, which is so much of what has labels, drawn by the seed. What
    was cut out of one example stays together.

    Raises:
        CompatibilityError: the share leaves one of them without examples.
    """
    labelled = np.unique(data.keys if data.unlabelled is None else data.keys[~data.unlabelled])
    number = round(share * len(labelled))
    if not 0 < number < len(labelled):
        raise CompatibilityError(f"adapt.quiz: {share:g} of {len(labelled):,} labelled examples is {number:,}; expected a "
                                 "share that leaves some for the quiz, and some to learn from")
    quiz = np.isin(data.keys, np.random.default_rng(seed).permutation(labelled)[:number])
    return _some(data, ~quiz), _some(data, quiz)


def _some(data: Prepared, wanted: Bool[NDArray[np.bool_], " examples"]) -> Prepared:
    rows = np.flatnonzero(wanted).tolist()
    return replace(data, examples=Subset(data.examples, rows), keys=data.keys[wanted], references=None,
                   lengths=None if data.lengths is None else [data.lengths[row] for row in rows],
                   unlabelled=None if data.unlabelled is None else data.unlabelled[wanted])
