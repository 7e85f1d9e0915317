"""Tokens on which teacher and student decide differently, with what stands before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.evaluate.fidelity import Decisions, flip_kinds, flips
from stilla.scores import Flip
from stilla.tasks.base import Task
from stilla.tasks.text.sequences import NO_ROW

_CONTEXT = 24
"""Labels before a token that are shown with it."""

PLACE = "▁▁"
"""Where the token stands that is decided about."""


def flipped_tokens(
    task: Task, decided: Mapping[str, Decisions], labels: NDArray[Any]
) -> tuple[dict[str, int], tuple[Flip, ...]]:
    """Numbers by kind, and the tokens to show; every token is decided by itself."""
    there = labels != NO_ROW
    flat = {subject: Decisions(one.decided[there], one.confidence[there]) for subject, one in decided.items()}
    examples, positions = np.nonzero(there)
    kinds = flip_kinds(flat["teacher"], flat["student"], labels[there])

    def show(row: int) -> str:
        example, position = examples[row], positions[row]
        before = labels[example, :position]
        said = task.decoded(before[before != NO_ROW][-_CONTEXT:].tolist())
        return f"{said}{PLACE}"

    shown = flips(kinds, flat, np.arange(len(examples)), labels[there], _Tokens(task), show)
    return {kind: len(rows) for kind, rows in kinds.items()}, shown


class _Tokens:
    """Tokens for a person, with what cannot be seen written out."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, number: int, /) -> str:
        said = self.task.decoded([number])
        return said if said.strip() and "\n" not in said else repr(said)
