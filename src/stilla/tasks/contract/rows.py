"""What a task's rows are: of what its models' outputs are made, and by what losses are divided."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from datasets import Dataset
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.signals import Batch, Side, Signals


class Rows(ABC):
    """Outputs as rows of logits with a label each."""

    kind: ClassVar[str]
    vocabulary: ClassVar[bool] = False
    """Whether a row is a token of a vocabulary. Then `batch.labels` is (batch, positions), aligned once with the
    positions that predict them, -100 where there is no row; logits come as `Headed`, and nobody holds them whole."""
    distributions: ClassVar[bool] = True
    """Whether what is stored of an answer, and looked at by filters, is a distribution (or a number) for every row; not where
    it is a vector of every text."""
    places: ClassVar[bool] = False
    """Whether a row's classes are places in an example, which mean nothing beyond it, and of which some are none: their
    logits are a floor, the same on both sides."""
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples")
    """The names that `counts` gives, what objectives may be divided by: `rows` and `examples`, and any others (`words`,
    `boxes`, `frames`)."""
    unordered: ClassVar[bool] = False
    """Whether `outputs` is of sets (batch, things, numbers), which are the same in whatever order."""

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """What losses are divided by, from the batch alone: a number for each name of `counted`."""

    @abstractmethod
    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        """Logits and labels as rows. Hidden states are recorded by `models/features.py` and given their mask by `mask`."""

    @abstractmethod
    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        """(batch, positions) bool, True at valid tokens, for masking hidden states; None where all are valid."""

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Tensor | None:
        """The same for one stack of layers, where a model has several over different positions."""
        return self.mask(batch, side)

    def placed(self, labels: Tensor) -> Tensor:
        """Labels as transformers' own collators make them, at the places where this task has its rows."""
        return labels

    @abstractmethod
    def row_classes(self) -> int:
        """Width of a row of logits: the number of classes, 2 for several labels, 1 for a number."""

    def class_names(self) -> tuple[str, ...]:
        """Names of the labels in the models' order; empty where there are none."""
        return ()

    def kl_from_equal(self) -> float:
        """What KL(teacher || equal probabilities) is at most, in nats, of whatever the exam's `divergence` is of; 0 where
        there are no distributions."""
        return math.log(max(1, self.row_classes()))

    def numbers_of(self, length: int) -> int:
        """How many numbers a whole forward gives for an example of this length."""
        return self.row_classes()

    def embedding_width(self, model: nn.Module) -> int:
        """Numbers of the vectors in this model's `Signals.embeddings`; 0 where it gives none."""
        return 0

    def bins_of(self, model: nn.Module) -> tuple[float, ...]:
        """Where the bins lie over which this model's edges of boxes are distributed (`Dims.bins`); empty where none are."""
        return ()

    def attributed(self, logits: Tensor, batch: Batch) -> Tensor:
        """(rows,) of which class of every row it is asked what in its example it rests on, by a teacher's logits; below 0 of
        none. An example's rows are asked about together, as the sum of these logits. By default the likeliest class, of
        examples that are a row each.

        Raises:
            CompatibilityError: its answers are none of which that can be asked.
        """
        examples = len(next(iter(batch.student.values())))
        if len(logits) != examples:
            raise CompatibilityError(f"what an answer rests on is asked of a whole example, and {examples} of these make "
                                     f"{len(logits)} rows; leave it out")
        return logits.argmax(-1)

    def attributed_names(self, classes: Tensor, batch: Batch, split: Dataset) -> list[str]:
        """What that was, in words, for every example of the batch, which are of the split."""
        names = self.class_names()
        return [names[one] if 0 <= one < len(names) else str(one) for one in classes.tolist()]
