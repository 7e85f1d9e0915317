"""What a task adds whose models write texts: what they are asked, and what their answers are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.text.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Asked:
    """What models are asked to write, one per example.

    `tokens`: of what they are given. `keys`: the examples in their split. `references`: (examples,) the data's own texts.
    `options`: of `generate`, which the model could not know (what its decoder begins with).
    """

    tokens: Tokens
    keys: NDArray[np.int64]
    references: NDArray[Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


class Writes(ABC):
    """A task over a vocabulary whose models continue a prompt or translate a source. Mixed into a `Task`."""

    @abstractmethod
    def text_metrics(self) -> tuple[str, ...]:
        """What texts are measured by where the recipe does not say, the headline first; () where it has to ask for it."""

    @abstractmethod
    def unasked(self) -> str | None:
        """Why these data ask for no text, and what to do; None where they do."""

    @abstractmethod
    def asked(self, split: Dataset, processor: Any) -> Asked:
        """What the models are given of a split.

        Raises:
            CompatibilityError: these data ask for nothing (plain text).
        """

    @abstractmethod
    def source_of(self, split: Dataset, key: int) -> str:
        """What an example asks, as text."""

    @abstractmethod
    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        """The split with these texts to learn in place of its own; a text that was `cut` has no end."""

    @abstractmethod
    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        """The batch whose rows are the written tokens, given what they were written for."""

    @abstractmethod
    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        """What written tokens say, without special ones."""

    @abstractmethod
    def identity(self, processor: Any) -> str:
        """A hash of how texts become tokens and tokens texts."""
