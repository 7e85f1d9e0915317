"""Which tokens a student keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.recipe import VocabularySpec
from stilla.students.vocabulary.pieces import Pieces


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of a tokenizer's tokens.

    `numbers`: of the kept ones, by the tokenizer, rising. `of`: how many there were. `always`: how many stay whatever the
    texts are: special and added tokens, those that the model names, what keeps every text readable. `lost`: how many that the
    texts use are not kept.
    """

    numbers: NDArray[np.int64]
    of: int
    always: int
    lost: int

    @cached_property
    def order(self) -> Mapping[int, int]:
        """Old number -> new number."""
        return {int(number): place for place, number in enumerate(self.numbers)}

    def __len__(self) -> int:
        return len(self.numbers)


def chosen(
    wanted: VocabularySpec, pieces: Pieces, weights: NDArray[np.float64], named: Collection[int], there: Collection[int]
) -> Kept:
    """The tokens of a smaller vocabulary: those that stay always, those that are used, then the first by their numbers, as
    many as are asked for (tokenizers number the frequent ones first).

    weights: (tokens,) how much each is used, the most used first where there is no room for all. named: those that have to
    stay, special ones for example. there: all that there are.

    Raises:
        CompatibilityError: fewer tokens were asked for than every text needs.
    """
    kept = {*named} | pieces.needed()
    always, most = len(kept), len(there) if wanted.tokens is None else wanted.tokens
    if most < always:
        raise CompatibilityError(f"student.vocabulary.tokens: got {most:,}; expected at least {always:,}: special tokens, "
                                 "and the characters (or bytes) that keep every text readable")
    used = [int(number) for number in np.argsort(-weights, kind="stable") if weights[number] > 0]
    _add(kept, used, pieces, most)
    if wanted.extra or wanted.tokens is not None:
        further = sorted(number for number in pieces.names if number not in kept and pieces.reached(number))
        _add(kept, further, pieces, most, at_most=wanted.extra if wanted.tokens is None else None)
    return Kept(np.array(sorted(kept), np.int64), len(there), always, len({*used} - kept))


def _add(kept: set[int], numbers: Iterable[int], pieces: Pieces, most: int, at_most: int | None = None) -> None:
    """Tokens with all that texts come past on their way to them, where there is room for that, `at_most` so many of them."""
    added = 0
    for number in numbers:
        if added == at_most or len(kept) == most:
            return
        if number in kept:
            continue
        new = (pieces.within(number) if number in pieces.names else {number}) - kept
        if len(kept) + len(new) <= most:
            kept |= new
            added += 1
