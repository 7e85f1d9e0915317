"""What there is to predict, as plain data: one class, several, or numbers; and how a column becomes it.

A class has a *name* (what models and people call it) and a *raw* spelling (what stands in the data). They
differ only where the data hold numbers and someone else knows the names: the recipe (`data.labels`) or the
teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import DataError
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.shared.columns import values
from stilla.tasks.shared.label_checks import is_null, rows_in_words, speller
from stilla.tasks.shared.label_values import Notation, feature_of, flags, number_or_none, read

Kind = Literal["single_label", "multi_label", "regression"]
Form = Literal["class", "columns", "list", "indicators", "number", "numbers"]
"""A class; several columns of 0 and 1; a list of classes; a list of 0 and 1; a number; several columns of numbers."""

BETWEEN = ("Bring the labels into that range, or take the activation out of the config (`sentence_transformers: "
         "{activation_fn: torch.nn.modules.linear.Identity}`) if they are logits.")
"""What can be done about labels that a sigmoid never gives."""

Activation = Literal["none", "sigmoid"]


@dataclass(frozen=True)
class Scale:
    """Of numbers to predict, what each output's are in the training data: mean and standard deviation."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """What there is to predict. `columns` is empty for a model whose batches a person makes."""

    form: Form
    columns: tuple[str, ...]
    names: tuple[str, ...] = ()
    """In the models' order; empty for a single number."""
    raw: tuple[str, ...] = ()
    """How the data spell each of `names`."""
    named: bool = True
    """False where `names` are only the data's numbers."""
    notation: Notation = "plain"
    """What texts in the column stand for."""
    activation: Activation = "none"
    """What makes a model's answer of its logit, where the answer is a number."""
    weights: tuple[float, ...] = ()
    """What the label of each of `names` counts in training; empty where all count the same."""
    scale: Scale | None = None
    """Of numbers, the units in which they are learnt; None: as they stand."""

    @property
    def kind(self) -> Kind:
        kinds: dict[Form, Kind] = {"class": "single_label", "number": "regression", "numbers": "regression"}
        return kinds.get(self.form, "multi_label")

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for an example."""
        return max(1, len(self.names))

    def encode(self, split: Dataset) -> NDArray[Any]:
        """(examples,) int64 classes; (examples, labels) int64 of 0 and 1, -100 where nobody knows whether a label applies; or
        (examples,) float32 numbers, or (examples, outputs), NaN where nobody knows one."""
        if self.form == "columns":
            known = [[NO_ANSWER if is_null(value) else value for value in flags(split, column)] for column in self.raw]
            return np.stack([np.array(one, np.int64) for one in known], axis=1)
        if self.form == "numbers":
            return np.stack([np.array([number_or_none(value) for value in values(split, column)], np.float32)
                             for column in self.raw], axis=1)
        rows = read(split, self.columns[0], self.notation)
        if self.form == "number":
            numbers = np.array(rows, np.float32)
            outside = [row for row, value in enumerate(numbers) if self.activation == "sigmoid" and not 0 <= value <= 1]
            if outside:
                raise DataError(
                    f"data.label: {self.columns[0]!r} goes from {numbers.min():g} to {numbers.max():g}, first outside of 0 "
                    f"to 1 in {rows_in_words(split, outside)}; the teacher answers between 0 and 1 (the sigmoid of its "
                    f"logit, says its config). {BETWEEN}")
            return numbers
        if self.form == "indicators":
            picked = [int(position) for position in self.raw]
            known = [[NO_ANSWER if is_null(value) else value for value in several] for several in rows]
            return np.array(known, np.int64)[:, picked]
        spell = speller(feature_of(split.features[self.columns[0]], self.notation, rows))
        index = {spelling: position for position, spelling in enumerate(self.raw)}
        if self.form == "class":
            return np.array([index[spell(value)] for value in rows], np.int64)
        encoded = np.zeros((len(rows), len(self.names)), np.int64)
        for row, several in enumerate(rows):
            encoded[row, [index[spell(value)] for value in several]] = 1
        return encoded
