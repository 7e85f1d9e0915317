"""Training on a stream: examples in the order in which they come, begun again where they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

import datasets
from torch.utils.data import IterableDataset

from stilla.errors import DataError
from stilla.signals import Batch
from stilla.training.reading import Reading


class Source(IterableDataset[Any]):
    """A person's stream. What was read of it to look at is not lost, also where it can be read only once."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._begun: Iterator[Any] | None = None

    def first(self, number: int) -> list[Any]:
        """Some examples from its beginning."""
        self._begun = iter(self.dataset)
        looked = list(islice(self._begun, number))
        self._begun = chain(looked, self._begun)
        return looked

    def __iter__(self) -> Iterator[Any]:
        return self.read(0)

    def read(self, again: int) -> Iterator[Any]:
        """Its examples; `again`: how often it was read to the end before."""
        begun, self._begun = self._begun, None
        if begun is not None and again == 0:
            return begun
        if isinstance(self.dataset, datasets.IterableDataset):
            self.dataset.set_epoch(again)
        return iter(self.dataset)


class Stream(IterableDataset[Batch]):
    """The micro-batches of one process, without an end: every optimiser step takes as many examples as the next.

    Each process reads the whole stream and takes its part, so that a step's examples are the same however they are cut. A
    stream that ends begins again, within a step if need be; `set_epoch` of `datasets` has its buffer shuffled anew. A
    resumed training reads again what it has had.
    """

    def __init__(
        self, source: Source, reading: Reading, *, batch_size: int, accumulate: int = 1, processes: int = 1, process: int = 0
    ) -> None:
        self.source = source
        self.reading = reading
        self.batch_size = batch_size
        self.pieces = accumulate * processes
        self.processes = processes
        self.process = process

    def __iter__(self) -> Iterator[Batch]:
        examples = self._examples()
        while True:
            step = list(islice(examples, self.batch_size * self.pieces))
            for piece in range(self.process, self.pieces, self.processes):
                yield self._batch(step[piece * self.batch_size : (piece + 1) * self.batch_size])

    def _batch(self, part: Sequence[tuple[int, int, Any]]) -> Batch:
        return self.reading.batch([row for _, _, row in part], [place for _, place, _ in part], part[0][0])

    def _examples(self) -> Iterator[tuple[int, int, Any]]:
        """(pass, place in it, example), pass after pass."""
        for again in count():
            place = -1
            for place, row in enumerate(self.source.read(again)):
                yield again, place, row
            if place < 0:
                raise DataError("the stream has no examples" if again == 0 else
                                f"the stream ended after {again} {'pass' if again == 1 else 'passes'} and gives nothing "
                                f"when it is "
                                "read again; make it one that begins anew, or train for fewer steps (max_steps)")


def first_batch(source: Source, reading: Reading, dataset: Any) -> Batch:
    """Of the first examples: what is wrong shows before training.

    Raises:
        DataError: there are none.
        CompatibilityError: they cannot be made into a batch.
    """
    rows = source.first(2)
    if not rows:
        raise DataError("the stream has no examples")
    return reading.tried(rows, dataset)
