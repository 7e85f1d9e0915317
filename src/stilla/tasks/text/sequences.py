"""Sequences of tokens with what is to be predicted in them: cut to length, packed into blocks, made into batches.

A *piece* is a run of tokens with its own attention: a document, a part of a long one, a conversation. A *block* is what
stands in one row of a batch: one piece, or several, packed end to end. In a packed block nothing attends to another
piece: their `position_ids` begin anew, which today's causal models of transformers take for a border, but only without
an `attention_mask` and without a cache of keys and values.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

NO_ROW = -100
"""Label of a position that predicts nothing."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Piece i is `ids[starts[i] : starts[i + 1]]`, from example `documents[i]` of its split; at least two tokens each.

    `wanted`: whether a token is to be predicted. A piece's first token never is: nothing comes before it.
    """

    ids: NDArray[np.int32]
    wanted: NDArray[np.bool_]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.documents)

    def sequences(self) -> list[Sequence_]:
        """Each by itself."""
        return [(self.ids[start:end], self.wanted[start:end]) for start, end in pairwise(self.starts.tolist())]


Sequence_ = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Tokens, and which of them are to be predicted."""


def joined(sequences: Iterable[tuple[Sequence_, int]]) -> Pieces:
    """Pieces end to end, each with its document; those in which nothing can be predicted are left out."""
    kept = [(ids, wanted, document) for (ids, wanted), document in sequences if wanted[1:].any()]
    ids = [one for one, _, _ in kept]
    return Pieces(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate([one for _, one, _ in kept]) if ids else np.zeros(0, np.bool_),
        np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64),
        np.array([document for _, _, document in kept], np.int64),
    )


def first(some: Sequence_, rows: int) -> Sequence_:
    """The same with so many tokens to predict, the first."""
    ids, wanted = some
    there = wanted.copy()
    there[0] = False
    there[np.flatnonzero(there)[rows:]] = False
    return ids, there


def cut(ids: NDArray[np.int32], length: int, most: int | None = None) -> list[Sequence_]:
    """A document in pieces of at most `length` tokens, in which every token but its first is predicted exactly once.

    A piece begins with the last token of the one before it, as the context of the next; with `most`, it has up to so many
    tokens, those before it as more of its context.
    """
    starts = range(0, max(1, len(ids) - 1), length - 1)
    if most is None:
        return [(piece, np.ones(len(piece), np.bool_)) for piece in (ids[start : start + length] for start in starts)]
    pieces = []
    for start in starts:
        end = min(start + length, len(ids))
        begin = max(0, min(start, end - most))
        pieces.append((ids[begin:end], np.arange(begin, end) > start if start else np.ones(end, np.bool_)))
    return pieces


def pack(lengths: Sequence[int] | NDArray[np.int64], room: int) -> list[list[int]]:
    """Which pieces share a block of `room` tokens: the longest first, each where the least room is left over.

    Best-fit decreasing (Johnson et al. 1974): at most 11/9 of the fewest possible blocks, and no piece is cut for it. The
    same lengths give the same blocks. Pieces in a block, and blocks by their first piece, are in the order of the data.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    blocks: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, block), sorted
    for piece in order.tolist():
        need = int(lengths[piece])
        place = bisect_left(free, (need, -1))
        if place < len(free):
            left, block = free.pop(place)
            blocks[block].append(piece)
        else:
            left, block = room, len(blocks)
            blocks.append([piece])
        if left - need >= 2:  # no piece is shorter
            insort(free, (left - need, block))
    return sorted(sorted(block) for block in blocks)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block i holds the pieces `members[borders[i] : borders[i + 1]]`; `pad` is the token after them."""

    pieces: Pieces
    members: NDArray[np.int64]
    borders: NDArray[np.int64]
    packed: bool
    pad: int

    @classmethod
    def of(cls, pieces: Pieces, room: int | None, pad: int, kinds: NDArray[np.bool_] | None = None) -> Blocks:
        """Packed into blocks of `room` tokens; a piece a block without it. `kinds`: pieces of two of them share no block."""
        if room is None:
            count = len(pieces)
            return cls(pieces, np.arange(count), np.arange(count + 1), False, pad)
        parts = [np.arange(len(pieces))] if kinds is None else [np.flatnonzero(kinds == kind) for kind in (False, True)]
        blocks = sorted([int(part[place]) for place in block] for part in parts for block in pack(pieces.lengths[part], room))
        borders = np.concatenate([[0], np.cumsum([len(block) for block in blocks])]).astype(np.int64)
        return cls(pieces, np.array([piece for block in blocks for piece in block], np.int64), borders, True, pad)

    def __len__(self) -> int:
        return len(self.borders) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(blocks,) tokens."""
        sums = np.concatenate([[0], np.cumsum(self.pieces.lengths[self.members])])
        return np.asarray(sums[self.borders[1:]] - sums[self.borders[:-1]])

    @property
    def documents(self) -> NDArray[np.int64]:
        """(blocks,) the document of each block's first piece."""
        return np.asarray(self.pieces.documents[self.members[self.borders[:-1]]])

    def members_of(self, block: int) -> NDArray[np.int64]:
        return self.members[self.borders[block] : self.borders[block + 1]]

    def batch(self, blocks: Sequence[int]) -> tuple[dict[str, Tensor], Int[Tensor, "batch positions"]]:
        """Inputs, and at each position the token that it predicts; `NO_ROW` where that is none of the wanted ones.

        What is padded is always at the end: in a packed row its positions are all 0, else the mask says it.
        """
        width = int(self.lengths[list(blocks)].max())
        shape = (len(blocks), width)
        ids, labels = np.full(shape, self.pad, np.int64), np.full(shape, NO_ROW, np.int64)
        beside = np.zeros(shape, np.int64)
        for row, block in enumerate(blocks):
            at = 0
            for piece in self.members_of(block):
                start, end = self.pieces.starts[piece], self.pieces.starts[piece + 1]
                tokens, length = self.pieces.ids[start:end], int(end - start)
                ids[row, at : at + length] = tokens
                # the one place where predictions are shifted: position t answers for token t + 1
                labels[row, at : at + length - 1] = np.where(self.pieces.wanted[start + 1 : end], tokens[1:], NO_ROW)
                beside[row, at : at + length] = np.arange(length) if self.packed else 1
                at += length
        name = "position_ids" if self.packed else "attention_mask"
        return {"input_ids": torch.from_numpy(ids), name: torch.from_numpy(beside)}, torch.from_numpy(labels)


def valid(position_ids: Int[Tensor, "batch positions"]) -> Bool[Tensor, "batch positions"]:
    """Which positions of packed rows hold tokens: pieces have two at least, and what is padded stands at 0."""
    following = torch.nn.functional.pad(position_ids[:, 1:], (0, 1))
    return (position_ids > 0) | (following == 1)
