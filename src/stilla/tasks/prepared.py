"""What tasks hand over: a model with what makes its inputs, examples ready for training, the pieces that are answered by
themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Given
from stilla.tasks.turns import Turns


@dataclass(frozen=True)
class Loaded:
    """A model, what makes its inputs (tokenizer or image processor), and where both came from."""

    model: nn.Module
    processor: Any
    source: str


@dataclass(frozen=True)
class Prepared:
    """One split, ready for training: `examples[i]` is what the collator takes.

    `lengths`: number of tokens per example, for length-grouped batches; `None` where examples have no length.
    `keys`: the index of each example in the split it came from (some may have been skipped).
    """

    examples: TorchDataset[Any]
    collate: Callable[[Sequence[Any]], Batch]
    keys: NDArray[np.int64]
    lengths: Sequence[int] | None = None
    on_epoch: Callable[[int], None] | None = None
    """Called with the epoch before its first batch, where examples are augmented at random."""
    views: int | None = None
    """After so many epochs the same changed examples come again, whatever the seed; None: never, or they do not change."""
    untouched: int = 0
    """The first so many epochs in which no example is changed; those after them have changed ones."""
    turns: tuple[Turns, ...] = ()
    """Who has to be told which of several forms an example takes in a pass, where that can be chosen; every example then has
    as many rows as any other."""
    redrawn: bool = False
    """Whether `on_epoch` only says which examples come, each of which is always the same."""
    packed: bool = False
    """Whether an example of a batch may hold several documents."""
    aligned: bool = True
    """Whether position p of both models' inputs is the same piece of the example; not with two tokenizers."""
    apart: Callable[[Sequence[Any]], Batch] | None = None
    """The collator of the same examples where position p is not the same piece, as each model reads them as it is used to;
    None where that makes no difference, or the positions differ anyway."""
    framed: bool = True
    """Whether both models see the same part of an example, at whatever size; not where one processor cuts borders off."""
    references: Given | None = None
    """What answers are compared with, one per example; None where those are the batches' labels."""
    unlabelled: NDArray[np.bool_] | None = None
    """(examples,) which of them nobody has labelled; None where nobody has to know it to draw them, or to count them. Of
    `redrawn` ones that of every place is said by whoever draws them."""
    seen: Callable[[float, bool], int] | None = None
    """How many examples of the split that are unlabelled or not so many epochs have taken at least once; None where every
    epoch takes all."""
    seconds: Sequence[float] | None = None
    """How long the sound of each example lasts; None of what is no sound."""
    whole: Prepared | None = None
    """All examples, where an epoch takes some of them; None where it takes all."""

    def __len__(self) -> int:
        return len(self.keys)

    def all_examples(self) -> Prepared:
        """Those of every epoch, for what passes over them once."""
        return self if self.whole is None else self.whole

    def read_apart(self) -> Prepared:
        """The same examples, each model reading them as it is used to: for what compares no position with another."""
        return self if self.apart is None else replace(self, collate=self.apart, aligned=False, apart=None)

    def within(self, epochs: float) -> Prepared:
        """The same for who passes over it no more than so often: where nothing is changed by then, as examples that never
        are."""
        unchanged = self.changes and epochs <= self.untouched
        return replace(self, redrawn=True, views=None) if unchanged else self

    @property
    def changes(self) -> bool:
        """Whether an example may be another one in the next epoch."""
        return self.on_epoch is not None and not self.redrawn


@dataclass(frozen=True)
class Segment:
    """The smallest piece of a batch that a model answers by itself: what attends to nothing outside of it.

    `content`: all that the teacher's answer depends on, as bytes; equal content has an equal answer, in whatever
    batch, order or block it stands. `rows`: which of the batch's rows it answers. `example`, `positions`: where in
    the batch it stands, for hidden states; without positions it is all of the example's valid ones.
    """

    content: bytes
    rows: slice
    example: int
    positions: slice | None = None


@dataclass(frozen=True)
class Texts:
    """What models read and write of a split, text by text; of very long ones the beginning. `length`: how many tokens of each
    they read at most; None: all."""

    lines: Iterable[str]
    length: int | None


def content(inputs: Mapping[str, Tensor], example: int) -> bytes:
    """One example of a batch as bytes: names, types, shapes and values, without what is padded after or before it."""
    mask = inputs.get("attention_mask")
    valid = None if mask is None else mask[example].bool().cpu()
    parts = []
    for name in sorted(inputs):
        value = inputs[name][example].detach().cpu()
        if valid is not None and value.shape[:1] == valid.shape:
            value = value[valid]
        parts.append(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        parts.append(value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return b"".join(parts)


def without_row(batch: Batch, example: int) -> bytes:
    """Where labels stand at the teacher's positions: those of an example that have none, of what is not padded."""
    labels, mask = batch.labels, batch.teacher.get("attention_mask")
    if labels is None or mask is None or labels.shape != mask.shape:
        return b""
    silent = (labels[example] == NO_ANSWER)[mask[example].bool()].nonzero()
    return silent.cpu().numpy().astype(np.int32).tobytes()
