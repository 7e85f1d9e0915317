"""Examples of which a token counts more, or less, than one of the others: a teacher's reasons beside its answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray

from stilla.signals import Batch
from stilla.tasks.shared import columns as _columns

WEIGHT = "stilla_weight"
"""A column: what a token of the example counts; 1 where nothing stands there."""


def weighed(split: Dataset, weight: float) -> Dataset:
    return split.with_format(None).add_column(WEIGHT, [weight] * len(split))


def weights_in(split: Dataset) -> Float[NDArray[np.float32], " examples"]:
    said = _columns.values(split, WEIGHT) if WEIGHT in split.column_names else [None] * len(split)
    return np.array([1.0 if one is None else one for one in said], np.float32)


def with_weights(batch: Batch, weights: Float[NDArray[np.float32], " examples"], examples: Sequence[int]) -> Batch:
    """The batch with what a token of each of its examples counts, where that is not always 1."""
    if (weights != 1).any():
        batch["counted"] = torch.from_numpy(weights[list(examples)])
    return batch
