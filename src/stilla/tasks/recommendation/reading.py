"""Histories of a split as numbers of items, and the batches that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.data import are_unlabelled
from stilla.data.histories import ITEMS, NEXT
from stilla.signals import Batch
from stilla.tasks.language.privileged import places
from stilla.tasks.language.vocabulary import with_unlabelled
from stilla.tasks.recommendation.catalogue import Catalogue
from stilla.tasks.text.sequences import NO_ROW, Blocks

UNKNOWN = -1
"""The number of an item that models do not know."""

ONLY_LAST = 0.1
"""Of the pieces that are learnt with hidden items, so many have the last one hidden and no other, which is what is asked
later (Sun et al. 2019, arXiv:1904.06690, sec. 3.6)."""


@dataclass(frozen=True, eq=False)
class Read:
    """Row i took `ids[starts[i] : starts[i + 1]]`, all of them known. `next`: (rows,) what is to be foretold, UNKNOWN where
    models do not know it. `lost`: events of items that they do not know."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    next: NDArray[np.int32]
    lost: int

    def __len__(self) -> int:
        return len(self.next)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def row(self, one: int | np.integer[Any]) -> NDArray[np.int32]:
        return self.ids[self.starts[one] : self.starts[one + 1]]


def read(split: Dataset, catalogue: Catalogue, *, asked: bool) -> Read:
    """`asked`: the last item is to be foretold of those before, where no other is said to be."""
    named = [name for name in (ITEMS, NEXT) if name in split.column_names]
    table: pa.Table = split.select_columns(named).with_format("arrow")[:]
    lists = table.column(ITEMS).combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    numbers = _numbers(lists.flatten(), catalogue)
    coming = np.full(len(lengths), UNKNOWN, np.int32)
    there = np.ones(len(numbers), bool)
    if NEXT in named:
        coming = _numbers(table.column(NEXT).combine_chunks(), catalogue)
    elif asked:
        ends = np.cumsum(lengths)[lengths > 0] - 1
        coming[lengths > 0] = numbers[ends]
        there[ends] = False
    rows = np.repeat(np.arange(len(lengths)), lengths)
    kept = there & (numbers != UNKNOWN)
    counts = np.bincount(rows[kept], minlength=len(lengths))
    return Read(numbers[kept], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), coming,
                int((there & (numbers == UNKNOWN)).sum()))


def _numbers(items: pa.Array, catalogue: Catalogue) -> NDArray[np.int32]:
    found = pc.index_in(items.cast(pa.string()), value_set=pa.array(catalogue.items, pa.string()))
    numbers: NDArray[np.int32] = pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers


@dataclass(frozen=True)
class Following:
    """Pieces of histories -> a batch in which every item is foretold of those before it."""

    blocks: Blocks
    unlabelled: NDArray[np.bool_]

    def __call__(self, examples: Sequence[int]) -> Batch:
        inputs, labels = self.blocks.batch(examples)
        batch = Batch(student=inputs, teacher=inputs, labels=labels,
                      keys=torch.from_numpy(self.blocks.documents[list(examples)]))
        return with_unlabelled(batch, self.unlabelled[list(examples)])


@dataclass(frozen=True, eq=False)
class Hiding:
    """Pieces of histories -> a batch in which some items are hidden, the same ones from both models: drawn from (seed, epoch,
    row, piece) and nothing else. `before`: of each what is read before it, and not hidden; None: nothing."""

    pieces: Sequence[NDArray[np.int32]]
    keys: NDArray[np.int64]
    parts: NDArray[np.int64]
    catalogue: Catalogue
    rate: float
    seed: int
    epoch: Tensor
    unlabelled: NDArray[np.bool_]
    before: Sequence[NDArray[np.int32]] | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, examples: Sequence[int]) -> Batch:
        read = [self.pieces[one] if self.before is None else np.concatenate([self.before[one], self.pieces[one]])
                for one in examples]
        ids = np.full((len(examples), max(map(len, read))), self.catalogue.pad_token_id, np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, NO_ROW)
        for row, (one, items) in enumerate(zip(examples, read)):
            hidden = self._hidden(one) + len(items) - len(self.pieces[one])
            ids[row, : len(items)], mask[row, : len(items)] = items, 1
            labels[row, hidden], ids[row, hidden] = items[hidden], int(self.catalogue.mask_token_id or 0)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        batch = Batch(student=inputs, teacher=inputs, labels=torch.from_numpy(labels),
                      keys=torch.from_numpy(self.keys[list(examples)]))
        return with_unlabelled(batch, self.unlabelled[list(examples)])

    def _hidden(self, one: int) -> NDArray[np.int64]:
        draw = np.random.default_rng((self.seed, int(self.epoch), int(self.keys[one]), int(self.parts[one])))
        length = len(self.pieces[one])
        if draw.random() < ONLY_LAST:
            return np.array([length - 1])
        return np.sort(draw.permutation(length)[: max(1, round(self.rate * length))])


@dataclass(frozen=True, eq=False)
class Foretelling:
    """Histories -> a batch in which what comes after each is foretold: at the last item, or at a mask behind it.

    `seen`: whether the batch says what a user has taken, all of it, as (batch, most) numbers, UNKNOWN behind the last.
    """

    read: Read
    rows: NDArray[np.int64]
    catalogue: Catalogue
    seen: bool

    @property
    def lengths(self) -> NDArray[np.int64]:
        room = self.catalogue.max_length - self.catalogue.masked
        return np.minimum(self.read.lengths[self.rows], room) + self.catalogue.masked

    def __call__(self, examples: Sequence[int]) -> Batch:
        chosen = self.rows[list(examples)]
        lengths, masked = self.lengths[list(examples)], self.catalogue.masked
        ids = np.full((len(chosen), int(lengths.max())), self.catalogue.pad_token_id, np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, NO_ROW)
        coming = self.read.next[chosen]
        for row, (one, length) in enumerate(zip(chosen, lengths)):
            ids[row, : length - masked] = self.read.row(one)[-(length - masked) :]
            mask[row, :length] = 1
            if masked:
                ids[row, length - 1] = int(self.catalogue.mask_token_id or 0)
            # what models do not know is a row all the same, of which nobody says what is right
            labels[row, length - 1] = max(0, int(coming[row]))
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        batch = Batch(student=inputs, teacher=inputs, labels=torch.from_numpy(labels), keys=torch.from_numpy(chosen))
        if self.seen:
            batch["seen"] = torch.from_numpy(self._seen(chosen))
        return with_unlabelled(batch, coming == UNKNOWN)

    def _seen(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        taken = [self.read.row(one) for one in chosen]
        found = np.full((len(taken), max(map(len, taken))), UNKNOWN, np.int64)
        for row, items in enumerate(taken):
            found[row, : len(items)] = items
        return found


@dataclass(frozen=True)
class Beside:
    """Two readings of the same examples in one batch: a student's, and what its teacher reads, who is asked about the same
    items at places of its own."""

    own: Callable[[Sequence[int]], Batch]
    theirs: Callable[[Sequence[int]], Batch]

    def __call__(self, examples: Sequence[int]) -> Batch:
        batch, told = self.own(examples), self.theirs(examples)
        assert batch.labels is not None
        assert told.labels is not None
        return Batch({**batch, "teacher": told.student, "words": places(batch.labels, told.labels)})


def marks(split: Dataset) -> NDArray[np.bool_]:
    """(rows,) of which of them only the teacher says what follows."""
    return are_unlabelled(split)
