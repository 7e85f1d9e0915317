"""Texts with some of their tokens replaced: more for a teacher to answer than the training data ask.

A teacher that has learnt its training data by heart says little more about them than the labels do. About the same
texts in other words it still says something. This is the idea of TinyBERT's augmentation (Jiao et al. 2020,
arXiv:1909.10351, sec. 3.4), without a language model to choose the words: a token is replaced by one that the
teacher's own embeddings place next to it, so that the text stays a text of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stilla.runtime.narrate import tracked
from stilla.tasks.text.tokens import Tokens
from stilla.tasks.turns import Turns

SHARE = 0.75
"""Of the texts that are changed."""
RATE = 0.4
"""Of a changed text's tokens that are replaced."""
CLEAN = 3
"""Passes without any, by default: a text that a student has not learnt yet, other words teach it no better."""
NEAREST = 15
"""Tokens that a token may be replaced by; one is drawn, each as often."""
_AT_ONCE = 512


class Draws:
    """Which texts are changed in a pass, and what their changes are drawn from: by (seed, pass, key) alone, so that no
    partition of a step changes them."""

    def __init__(self, seed: int, share: float = SHARE, untouched: int = 0, views: int | None = None) -> None:
        """`share`: of the texts that are changed. `untouched`: the first so many passes, in which none is. `views`: how many
        changed forms there are of each text, which later passes take in turn, whatever the seed; None: new ones in every
        pass."""
        self.seed, self.share = seed if views is None else 0, share
        self.turns = Turns(views, untouched)

    def of(self, key: int) -> np.random.Generator | None:
        """What is drawn for one example in this pass; None where it stays as it is."""
        if not self.turns.changes:
            return None
        view, candidate = self.turns.of(key)
        draw = np.random.default_rng((self.seed, view, key))
        if draw.random() >= self.share:
            return None
        # candidates differ in what is drawn, and agree on whether anything is
        return np.random.default_rng((self.seed, view, key, candidate)) if candidate else draw


class Perturbation:
    """Replaces tokens in place by similar ones. Special tokens stay."""

    def __init__(
        self, tokens: Tokens, special: Sequence[int], embedding: Float[Tensor, "vocabulary width"], draws: Draws
    ) -> None:
        """`embedding`: the teacher's, of every token. Only tokens that the training data use replace others."""
        words = np.setdiff1d(tokens.ids, special)
        self.similar = nearest(embedding[torch.from_numpy(words).long()])
        self.words = words
        self.place = np.full(len(embedding), -1, np.int64)
        self.place[words] = np.arange(len(words))
        self.draws = draws

    def __call__(
        self, inputs: Mapping[str, Tensor], keys: Int[NDArray[np.int64], " batch"]
    ) -> Bool[NDArray[np.bool_], " batch"]:
        """Change `input_ids` in place; which examples were changed."""
        ids, valid = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy().astype(bool)
        changed = np.zeros(len(keys), bool)
        choices = self.similar.shape[1]
        for row, key in enumerate(keys):
            draw = self.draws.of(int(key))
            if draw is None or choices == 0:
                continue
            # drawn by place among the valid tokens, so that padding to another length changes nothing
            places = np.flatnonzero(valid[row] & (self.place[ids[row]] >= 0))
            places = places[draw.random(len(places)) < RATE]
            chosen = self.similar[self.place[ids[row, places]], draw.integers(choices, size=len(places))]
            ids[row, places] = self.words[chosen]
            changed[row] = len(places) > 0
        return changed


def nearest(
    embedding: Float[Tensor, "words width"], most: int = NEAREST
) -> Int[NDArray[np.int64], "words nearest"]:
    """The rows with the greatest cosine to each row, itself left out; fewer than `most` where there are fewer."""
    unit = functional.normalize(embedding.detach().float(), dim=-1)
    most = min(most, max(len(unit) - 1, 0))
    found = np.zeros((len(unit), most), np.int64)
    for start in tracked(range(0, len(unit), _AT_ONCE), "looking for similar words"):
        cosine = unit[start : start + _AT_ONCE] @ unit.T
        cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -torch.inf
        found[start : start + _AT_ONCE] = cosine.topk(most, dim=-1).indices.cpu().numpy()
    return found
