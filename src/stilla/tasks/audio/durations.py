"""How many frames of a sound each token of its text lasts: what the data say, or where a teacher's own speech of the text
lies along the sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, LargeList, List, Value
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from stilla.errors import DataError
from stilla.tasks.audio.cepstra import path
from stilla.tasks.shared.columns import existing, values
from stilla.tasks.text.tokens import Tokens

Lasting = Int[NDArray[np.int64], "tokens"]
"""Of one text, frames of every token."""


def durations_column(named: str | None, train: Dataset) -> str | None:
    """Raises:
        DataError: there is no such column, or it holds no lists of whole numbers.
    """
    return None if named is None else existing("durations", (named,), train, _whole_numbers, "lists of whole numbers")[0]


def _whole_numbers(feature: object) -> bool:
    return isinstance(feature, List | LargeList) and isinstance(feature.feature, Value) \
        and feature.feature.dtype.startswith(("int", "uint"))


@dataclass(frozen=True)
class Given:
    """What a column says."""

    said: Sequence[Sequence[int] | None]

    @classmethod
    def of(cls, split: Dataset, column: str) -> Given:
        return cls(values(split, column))

    def unfit(self, rows: Sequence[int], tokens: Sequence[int], frames: Sequence[int]) -> list[int]:
        """Rows whose durations are not one of every token, or do not add up to the sound's frames."""
        return [row for row in rows if (one := self.said[row]) is None or len(one) != tokens[row] or min(one) < 0
                or sum(one) != frames[row]]

    def lasting(self, row: int) -> Lasting:
        return np.array(self.said[row], np.int64)


def along(
    said: Float[NDArray[np.floating], "frames bins"], lasting: Lasting, right: Float[NDArray[np.floating], "others bins"]
) -> Lasting:
    """Durations in a sound of the same text as a model's speech, of which they are known: every frame of the sound belongs to
    the token whose frame lies with it along the best warping of one to the other. They add up to the sound's frames."""
    owner = np.repeat(np.arange(len(lasting)), lasting)
    theirs, own = path(cdist(said, right))
    # of several frames that lie with one of the sound it is the middle one's
    first, last = np.searchsorted(own, np.arange(len(right))), np.searchsorted(own, np.arange(len(right)), "right")
    return np.bincount(owner[theirs[(first + last - 1) // 2]], minlength=len(lasting))


def evenly(tokens: int, frames: int) -> Lasting:
    """As if all lasted as long: where only sizes are asked for."""
    return np.diff(np.arange(tokens + 1) * frames // tokens)


def refuse_zeros(read: Tokens) -> None:
    """Raises:
        DataError: texts have a token 0.
    """
    number = len(np.unique(np.searchsorted(read.starts, np.flatnonzero(read.ids == 0), "right")))
    if number:
        raise DataError(f"{number} of {len(read.lengths)} texts have the token 0, which FastSpeech2-Conformer takes for "
                        "padding: what it reads of it stays zero and is never learnt. Give a tokenizer whose token 0 is its "
                        "padding")
