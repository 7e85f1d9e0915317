"""Texts with some of their tokens replaced: more for a teacher to answer than the training data ask.

A teacher that has learnt its training data by heart says little more about them than the labels do. About the same
texts with other words in them it still says something (the idea of TinyBERT's augmentation, Jiao et al. 2020,
arXiv:1909.10351, sec. 3.4, without a language model to choose the words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from stilla.tasks._tokens import Tokens

SHARE = 0.5
"""Of the texts that are changed."""
RATE = 0.3
"""Of a changed text's tokens that are replaced, by tokens drawn as often as they occur in the training data."""


class Perturbation:
    """Replaces tokens in place; what it draws depends on (seed, epoch, key) alone. Special tokens stay."""

    def __init__(self, tokens: Tokens, special: Sequence[int], seed: int) -> None:
        self.words = tokens.ids[~np.isin(tokens.ids, special)]
        self.special = np.array(sorted(special))
        self.seed = seed
        # shared, so that the loader's processes see it change
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(
        self, inputs: Mapping[str, Tensor], keys: Int[NDArray[np.int64], " batch"]
    ) -> Bool[NDArray[np.bool_], " batch"]:
        """Change `input_ids` in place; which examples were changed."""
        ids, valid = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy().astype(bool)
        changed = np.zeros(len(keys), bool)
        for row, key in enumerate(keys):
            draw = np.random.default_rng((self.seed, int(self.epoch), int(key)))
            if draw.random() >= SHARE:
                continue
            # drawn by place among the valid tokens, so that padding to another length changes nothing
            places = np.flatnonzero(valid[row] & ~np.isin(ids[row], self.special))
            places = places[draw.random(len(places)) < RATE]
            ids[row, places] = self.words[draw.integers(len(self.words), size=len(places))]
            changed[row] = len(places) > 0
        return changed
