"""What a collator makes and the trainer moves: the inputs of both sides, and what their rows are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


class Side(StrEnum):
    STUDENT = "student"
    TEACHER = "teacher"


class Batch(dict[str, Any]):
    """What a collator makes and the trainer moves: a mapping with the fixed keys below.

    - `student`: keyword arguments of the student's forward.
    - `teacher`: keyword arguments of the teacher's forward; the same object where they are the same.
    - `labels`: row labels before flattening, as the task understands them; absent without labels.
    - `unlabelled`: (batch,) bool, over a vocabulary the examples whose labels say where rows are, and not what is learnt
      there; absent where there are none.
    - `words`: by side (batch, words), where rows are words, or tokens that stand elsewhere for either side, the position that
      answers for each; negative where there is none.
    - `looks`: (batch, bytes) where examples have pictures beside texts, a hash of what is stored of them.
    - `places`: by side (batch, classes), where a row's classes are places in an example, the position of each; negative
      where none is. `characters`: by side (batch, classes, 2), what of its text stands there, from and to; both 0 where
      nothing does. `across`: where the two models' places differ, (batch, rows of an example, classes) `to`, the student's
      class that each of the teacher's stands for, and `cells`, that with whose probability each of the student's goes;
      negative where none is.
    - `queries`: (rows,) where rows are a query's candidates, which query of the batch each belongs to, in rising order.
    - `pictures`: (batch,) which of the pictures each example has, negative where it has none. `texts`: (texts,) which of the
      texts that are read; `numbers`: (texts,) its number among all, equal for equal texts; `of`: (texts,) whose it is, an
      example of the batch.
    - `start`: where its vectors stand among those of the optimiser step.
    - `sizes`: (batch, 2) where places of a picture are answered, its size in pixels: height and width of masks, width and
      height of what boxes lie in.
    - `grid`: where masks of objects are answered, how many places lie below and beside each other in a picture.
    - `frames`: by side (batch, frames) bool, where examples are sounds, which frames of hidden states are the sound's own.
    - `scribe`: where frames are of speech, what their classes stand for.
    - `seen`: (batch, most), where rows are items, which of them an example has already; negative behind the last.
    - `counted`: (batch,) over a vocabulary what a token of each example counts; absent where all count 1.
    - `given`: labels as a person's collator made them, where the task has its rows at other places.
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

    def part(self, examples: slice) -> Batch:
        """Some of its examples, padded as they are."""

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[examples]
            return {name: cut(one) for name, one in value.items()} if isinstance(value, Mapping) else value

        return Batch({name: cut(value) for name, value in self.items()})
