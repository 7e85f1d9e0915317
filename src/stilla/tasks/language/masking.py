"""Which tokens a masked language model has to predict, drawn from (seed, epoch, piece) and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stilla.tasks.text.sequences import NO_ROW

HIDDEN, REPLACED = 0.8, 0.1
"""Of the chosen tokens, the fractions that become the mask token, and another token; the rest stays (Devlin et al. 2019,
arXiv:1810.04805, sec. 3.1)."""


@dataclass(frozen=True, eq=False)
class Masking:
    """Draws the masks of pieces.

    `rate`: of the words chosen; at least one is. `mask`: the mask token. `others`: the tokens that may replace one.
    """

    rate: float
    mask: int
    others: NDArray[np.int32]
    seed: int

    def __call__(
        self, ids: NDArray[np.int32], words: NDArray[np.int32], *, epoch: int, piece: tuple[int, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """What the models see of a piece, and the labels of its positions.

        `piece`: the text's key, and which of its pieces it is.
        `words`: the word that each token is a part of, -1 for those that are never chosen (special ones). All tokens of
        a word are chosen together, and each is hidden, replaced or left as it is by itself.
        """
        draw = np.random.default_rng((self.seed, epoch, *piece))
        there = np.unique(words[words >= 0])
        chosen = draw.permutation(there)[: max(1, round(self.rate * len(there)))]
        places = np.flatnonzero(np.isin(words, chosen))
        labels = np.full(len(ids), NO_ROW, np.int64)
        labels[places] = ids[places]
        fate = draw.random(len(places))
        seen = ids.copy()
        seen[places[fate < HIDDEN]] = self.mask
        replaced = places[(fate >= HIDDEN) & (fate < HIDDEN + REPLACED)]
        seen[replaced] = draw.choice(self.others, len(replaced))
        return seen, labels
