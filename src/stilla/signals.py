"""What models say, in one form: the struct between tasks and objectives.

A **row** is one prediction that the student has to make: an example (classification), a label of an example
(several labels), later a token or a decoder step. A task flattens its *valid* positions into rows, so no
objective ever sees padding, a shift or a mask of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Batch(dict[str, Any]):
    """What a collator makes and the trainer moves: a mapping with the fixed keys below.

    - `student`: keyword arguments of the student's forward.
    - `teacher`: keyword arguments of the teacher's forward; the same object where they are the same.
    - `labels`: row labels before flattening, as the task understands them; absent without labels.
    - `keys`: (batch,) int64, the example's index in its split; what predictions are joined by.
    """

    @property
    def student(self) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self["student"]
        return inputs

    @property
    def teacher(self) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self["teacher"]
        return inputs

    @property
    def labels(self) -> Tensor | None:
        return self.get("labels")

    @property
    def keys_(self) -> Int[Tensor, "batch"] | None:
        """The examples' keys (`keys` is a mapping's own method)."""
        return self.get("keys")

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[int, Any] = {}  # by identity, so that shared inputs stay shared and move once

        def move(value: Any) -> Any:
            if id(value) not in moved:
                if isinstance(value, Tensor):
                    moved[id(value)] = value.to(device)
                elif isinstance(value, Mapping):
                    moved[id(value)] = {name: move(one) for name, one in value.items()}
                else:
                    moved[id(value)] = value
            return moved[id(value)]

        return Batch({name: move(value) for name, value in self.items()})


@dataclass(frozen=True)
class Dense:
    """All logits of every row: the form for classifiers."""

    logits: Float[Tensor, "rows classes"]


Form = Dense
"""The forms that a distribution over classes comes in. `Headed`, `TopK`, `Samples`, `Mixture` join it when they exist."""


@dataclass(frozen=True)
class Stack:
    """The hidden states of one layer stack: [0] enters the first layer, [i] leaves layer i - 1.

    `mask` is True at valid tokens; `None` where every position is valid (images).
    """

    hidden_states: Sequence[Float[Tensor, "batch positions width"]]
    mask: Bool[Tensor, "batch positions"] | None = None


@dataclass(frozen=True)
class Signals:
    """What one model said about one batch. A field is added only when two tasks or two objectives need it."""

    logits: Form | None = None
    labels: Tensor | None = None
    """(rows,): int64 classes, -100 where the row has no label; or floats to regress on."""
    stacks: Mapping[str, Stack] = field(default_factory=dict)


@dataclass(frozen=True)
class Dims:
    """The sizes that an objective may need before training: what a model's signals will look like.

    `classes`: width of a row of logits. `widths`: per stack the width of each hidden state ([0] enters layer 0).
    """

    classes: int
    widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
