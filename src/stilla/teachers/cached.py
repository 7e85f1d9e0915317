"""A teacher that is not there: what it said is read from a cache, found by what the batch holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from stilla.cache import DTYPES, Manifest, Place, Ranked, Store, TopKCoder, key_of
from stilla.cache.blobs import decode
from stilla.cache.shards import digest_of
from stilla.errors import CacheError
from stilla.signals import Batch, Dense, Dims, Form, Head, Headed, Samples, Signals, Stack, TopK
from stilla.tasks.base import Segment, Side, Task
from stilla.teachers.alignment import refuse_shifted


class CachedTeacher:
    """Answers every batch from a cache, as the live teacher did when it was captured; several may read one cache.

    Dense float32 logits come back to the bit, other precisions and hidden states as they were rounded, top-k to the
    bound of its 8 bits, samples as they were drawn. Labels are the batch's own.

    Raises:
        CacheError: there is no such cache, it is damaged, or was made from something else; it lacks the temperature.
    """

    def __init__(
        self,
        path: str | Path,
        task: Task,
        *,
        temperature: float = 1.0,
        states: Mapping[str, Sequence[int]] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        check_alignment: bool = True,
    ) -> None:
        """`temperature`: of top-k distributions. `states`: hidden states by stack that it must have. `fingerprint`: what
        it must have been made from. `check_alignment`: over a vocabulary, hold the first batch's answers against its
        labels."""
        self.store = Store(path)
        _refuse_lacking(self.store, states or {})
        if fingerprint is not None:
            self.store.refuse_other(fingerprint)
        self.task = task
        self.reading = Reading(self.store.place, self.store.manifest, task, temperature, check_alignment=check_alignment)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signals:
        segments = self.task.segments(batch)
        places = self.store.find([key_of(segment.content) for segment in segments])
        lacking = int((places < 0).sum())
        if lacking:
            raise CacheError(
                f"{self.store.place.path} lacks {lacking} of the {len(segments)} pieces of this batch (it holds "
                f"{len(self.store):,}): it was captured from other data, with another length, or not to its end. "
                "`stilla capture` with this recipe adds what is missing")
        return self.reading.signals(self.store.read(places), segments, batch)

    def to(self, device: torch.device | str) -> None:
        self.reading.to(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        """The sizes of what the teacher said, brought to the student's classes where these are only some of its own."""
        return self.task.told(dims_in(self.store.manifest))


class Reading:
    """Turns what lies in a cache into signals."""

    def __init__(
        self, place: Place, manifest: Manifest, task: Task, temperature: float, *, check_alignment: bool
    ) -> None:
        self._place = place.path
        self._unchecked = check_alignment and task.vocabulary
        self.manifest = manifest
        self.task = task
        self.temperature = temperature
        self.device = torch.device("cpu")
        self.head = None if manifest.head is None else _head(place, manifest.head)
        self.product = None if manifest.head is None else DTYPES[manifest.head["product"]]
        if isinstance(manifest.logits, TopKCoder):
            _refuse_temperature(place, temperature, manifest.logits.temperatures)

    def to(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.head is not None:
            bias = self.head.bias
            self.head = Head(self.head.weight.to(device), None if bias is None else bias.to(device), self.head.scale,
                             self.head.softcap, self.head.used)

    def signals(self, found: Sequence[tuple[int, memoryview]], segments: Sequence[Segment], batch: Batch) -> Signals:
        """Of (rows, blob) pairs, one for each of the batch's segments.

        Raises:
            CacheError: a blob that does not belong to its segment.
        """
        for (rows, _), segment in zip(found, segments, strict=True):
            if rows != segment.rows.stop - segment.rows.start:
                raise CacheError(f"the cache holds {rows} rows of a piece of the batch that has "
                                 f"{segment.rows.stop - segment.rows.start}: it was made for another task")
        kept, states, positions = decode(self.manifest, found)
        said = self._form(kept)
        if self._unchecked and said is not None and batch.labels is not None:
            labels = self.task.teacher_labels(batch.labels[batch.labels != -100]).to(self.device)
            refuse_shifted(said, labels, segments, self.manifest.classes, self._place)
            self._unchecked = False
        return Signals(logits=said, stacks=self._stacks(states, positions, segments, batch))

    def _form(self, kept: Tensor | Ranked | Samples | None) -> Form | None:
        if isinstance(kept, Ranked) and isinstance(self.manifest.logits, TopKCoder):
            said = kept.at(self.temperature, self.manifest.logits.temperatures)
            return TopK(said.ids.to(self.device), said.log_probs.to(self.device), said.log_tail.to(self.device),
                        said.temperature)
        if isinstance(kept, Samples):
            return Samples(kept.ids.to(self.device), kept.counts.to(self.device), kept.entropy.to(self.device))
        if not isinstance(kept, Tensor):
            return None
        if self.head is not None:
            return Headed(kept.to(self.device, self.product), self.head)
        return Dense(kept.to(self.device))

    def _stacks(
        self, states: Mapping[str, Tensor], positions: Sequence[int], segments: Sequence[Segment], batch: Batch
    ) -> dict[str, Stack]:
        if not states:
            return {}
        stack = next(iter(states)).rpartition("/")[0]  # only ever of one: `CapturingTeacher` refuses more
        pooled = self.manifest.states is not None and self.manifest.states.pooling is not None
        # one vector per example is all of its valid positions
        mask = None if pooled else self.task.stack_mask(batch, Side.TEACHER, stack)
        placed = {name: self._placed(state, positions, segments, mask) for name, state in states.items()}
        shape = next(iter(placed.values())).shape[:2]
        # what was not stored has a shape and no values: using it is an error, never a zero
        every = [placed.get(f"{stack}/{index}", torch.empty(*shape, width, device="meta"))
                 for index, width in enumerate(self.manifest.widths[stack])]
        return {stack: Stack(every, mask)}

    def _placed(
        self, state: Tensor, positions: Sequence[int], segments: Sequence[Segment], mask: Tensor | None
    ) -> Tensor:
        """(batch, positions, width) of the segments' states, zero where no segment has any."""
        pieces = state.to(self.device).split(list(positions))
        if mask is None:
            return torch.stack(pieces)
        whole = state.new_zeros((*mask.shape, state.shape[1]), device=self.device)
        for piece, segment in zip(pieces, segments, strict=True):
            here = segment.positions if segment.positions is not None else mask[segment.example].nonzero().squeeze(1)
            whole[segment.example, here] = piece
        return whole


def dims_in(manifest: Manifest) -> Dims:
    return Dims(manifest.classes, {name: tuple(widths) for name, widths in manifest.widths.items()})


def _head(place: Place, record: Mapping[str, Any]) -> Head:
    try:
        content = place.read(record["file"])
    except FileNotFoundError as error:
        raise CacheError(f"{place.path}: {record['file']} is missing, and without the head its hidden states are no "
                         "answers; remove this folder and capture again") from error
    if digest_of(content) != record["digest"]:
        raise CacheError(f"{place.path}: {record['file']} does not match its checksum: damaged; remove this folder and "
                         "capture again")
    tensors = load(content)
    return Head(tensors["weight"], tensors.get("bias"), record["scale"], record["softcap"], record["used"])


def _refuse_lacking(store: Store, states: Mapping[str, Sequence[int]]) -> None:
    stored = set(store.manifest.states.widths if store.manifest.states else {})
    lacking = [f"{stack}/{index}" for stack, indices in states.items() for index in indices
               if f"{stack}/{index}" not in stored]
    if lacking:
        raise CacheError(f"{store.place.path} holds the hidden states {sorted(stored) or 'of no layer'}, not {lacking}: it "
                         "was captured for other objectives or another student. Give another cache.path")


def _refuse_temperature(place: Place, temperature: float, stored: Sequence[float]) -> None:
    try:
        Ranked(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), torch.zeros(1, len(stored))).at(temperature, stored)
    except CacheError as error:
        raise CacheError(f"{place.path}: {error}") from None
