"""Two tokenizers of one passage: where both have a border, and which of the one's tokens stand for a token of the other.

What counts are the passage's characters without spaces, which tokenizers give to the word before, the word behind, or to a
token of their own. Between two borders that both have lies a *block*: the same characters in tokens of either. Windows are
cut at borders alone, so that both models read the same text, and no probability ever leaves its block.

A start is where the token's first character stands, an end where its last does. So a teacher's token stands, as a start, for
the student's token that holds its first character, and as an end for that with its last: the answer keeps its text. Student's
tokens within a word of the teacher's, at which it can begin no answer, get e^-10 of the block's probability: not none, of
which a reverse divergence or a squared error of logits would be infinite.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

NOWHERE = -1
"""In place of a position: no answer can be there (the question, special tokens, padding)."""
FLOOR = -29952.0
"""The logit of a class at which no answer can be; a number that float16 and bfloat16 hold too."""
_LITTLE = 10.0
"""In nats, how much less than its block's a token has at which the teacher can begin (or end) no answer."""

Spans = tuple[NDArray[np.int32], NDArray[np.int32]]
"""(tokens,) the first character of each, and the one behind its last; empty where it holds none."""


@functools.lru_cache(64)  # the questions of a passage stand one behind the other
def ranks(context: str) -> NDArray[np.int64]:
    """(characters + 1,) how many characters before each place are no spaces."""
    return np.concatenate([[0], np.cumsum([not one.isspace() for one in context], dtype=np.int64)])


def borders(rank: NDArray[np.int64], ours: Spans, theirs: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many tokens of each lie before every border that both have, from none to all; blocks lie between.

    Between two tokens is a border where no character of the passage is on both sides of it (bytes of one character are).
    """
    (low, high), (other_low, other_high) = (_between(rank, *one) for one in (ours, theirs))
    found, place = [(0, 0)], 1
    for first in range(1, len(ours[0])):
        while place < len(theirs[0]) and other_high[place] < low[first]:
            place += 1
        if place >= len(theirs[0]):
            break
        if max(low[first], other_low[place]) <= min(high[first], other_high[place]):
            found.append((first, place))
            place += 1
    if len(ours[0]):
        found.append((len(ours[0]), len(theirs[0])))
    mine, yours = np.array(found, np.int64).T
    return mine, yours


def _between(rank: NDArray[np.int64], begins: NDArray[np.int32], ends: NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """For so many tokens before it, between which characters a border would lie: behind all before, before all behind."""
    if not len(begins):
        return [0], [0]
    empty = ends <= begins  # wherever they are said to be, no border is in their way
    behind = np.maximum.accumulate(np.where(empty, 0, rank[ends]))
    before = np.minimum.accumulate(np.where(empty, rank[-1], rank[begins])[::-1])[::-1]
    return [0, *behind.tolist()], [*before.tolist(), int(behind[-1])]


def stands_for(
    rank: NDArray[np.int64], ours: Spans, theirs: Spans
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of a window, of which `ours` and `theirs` are all tokens with both NOWHERE at what holds no answer, both 0 at the place
    that says that there is none.

    Gives (their tokens, 2), the token of ours that each stands for as a start and as an end; and (our tokens, 2), that with
    whose probability each of ours goes: itself where any stands for it, else the one before it (of ends, behind it).
    """
    to = np.full((len(theirs[0]), 2), NOWHERE, np.int32)
    cells = np.full((len(ours[0]), 2), NOWHERE, np.int32)
    (nothing,), (their_nothing,) = (np.flatnonzero(one[1] == 0) for one in (ours, theirs))
    to[their_nothing], cells[nothing] = nothing, nothing
    real, their_real = (np.flatnonzero(one[1] > 0) for one in (ours, theirs))
    if not len(real) or not len(their_real):
        return to, cells
    mine, yours = ((one[0][places], one[1][places]) for one, places in ((ours, real), (theirs, their_real)))
    if all(np.array_equal(one, other) for one, other in zip(mine, yours)):  # the same tokens, behind another question
        to[their_real] = cells[real] = np.stack([real, real], 1)
        return to, cells
    cuts, their_cuts = borders(rank, mine, yours)
    starts, stops = _first_and_last(rank, mine, yours, cuts, their_cuts)
    to[their_real] = np.stack([real[starts], real[stops]], 1)
    before, behind = _nearest(starts, cuts)
    cells[real, 0] = real[np.where(before >= 0, before, behind)]
    before, behind = _nearest(stops, cuts)
    cells[real, 1] = real[np.where(behind >= 0, behind, before)]
    return to, cells


def _first_and_last(
    rank: NDArray[np.int64], ours: Spans, theirs: Spans, cuts: NDArray[np.int64], their_cuts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of their tokens, which of ours holds its first character, and which its last; of its block's in any case."""
    (begins, ends), (their_begins, their_ends) = ours, theirs
    first = np.searchsorted(rank[ends], rank[their_begins], side="right")
    last = np.searchsorted(rank[begins], rank[their_ends], side="left") - 1
    # one of a space alone is that of ours that holds it, if there is one
    alone = rank[their_begins] == rank[their_ends]
    first = np.where(alone, np.searchsorted(ends, their_begins, side="right"), first)
    last = np.where(alone, np.searchsorted(begins, their_ends, side="left") - 1, last)
    block = np.searchsorted(their_cuts, np.arange(len(their_begins)), side="right") - 1
    low, high = cuts[block], cuts[block + 1] - 1
    return first.clip(low, high), last.clip(low, high)


def _nearest(known: NDArray[np.int64], cuts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every token the nearest that is known, itself or before it, and itself or behind it; NOWHERE if not in its block."""
    known, place = np.unique(known), np.arange(cuts[-1])
    block = np.searchsorted(cuts, place, side="right") - 1
    before = known[(np.searchsorted(known, place, side="right") - 1).clip(0)]
    behind = known[np.searchsorted(known, place, side="left").clip(0, len(known) - 1)]
    return (np.where((cuts[block] <= before) & (before <= place), before, NOWHERE),
            np.where((place <= behind) & (behind < cuts[block + 1]), behind, NOWHERE))


def carried(
    logits: Float[Tensor, "batch 2 theirs"], to: Int[Tensor, "batch 2 theirs"], cells: Int[Tensor, "batch 2 ours"]
) -> Float[Tensor, "batch 2 ours"]:
    """A teacher's logits at the student's places: of each the logarithm of all that stands for it, so that every block keeps
    its probability exactly; `to` and `cells` as `stands_for` has them, FLOOR where NOWHERE."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    there, own = to >= 0, cells >= 0
    # one place more, for all that is nowhere
    index, shape = torch.where(there, to, cells.shape[-1]), (*cells.shape[:-1], cells.shape[-1] + 1)
    given = torch.where(there, logits, FLOOR)
    top = logits.new_full(shape, FLOOR).scatter_reduce(-1, index, given, "amax")
    mass = logits.new_zeros(shape).scatter_add(-1, index, (given - top.gather(-1, index)).exp())
    whole = top + mass.clamp_min(torch.finfo(mass.dtype).tiny).log()
    cell = torch.where(own, cells, cells.shape[-1])
    size = logits.new_zeros(shape).scatter_add(-1, cell, torch.ones_like(cell, dtype=logits.dtype)).gather(-1, cell)
    itself = cells == torch.arange(cells.shape[-1], device=cells.device)
    share = torch.where(itself, torch.log1p(-(size - 1) * math.exp(-_LITTLE)), -_LITTLE)
    return torch.where(own, whole.gather(-1, cell) + share, FLOOR)


@dataclass(frozen=True, eq=False)
class Across:
    """`stands_for` of many windows, end to end."""

    to: NDArray[np.int32]
    cells: NDArray[np.int32]

    @classmethod
    def of(cls, parts: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> Across:
        to, cells = ([one[side] for one in parts] or [np.zeros((0, 2), np.int32)] for side in (0, 1))
        return cls(np.concatenate(to), np.concatenate(cells))
