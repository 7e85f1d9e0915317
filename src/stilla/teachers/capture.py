"""A live teacher into a cache: while a student is trained, or all at once beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from stilla.cache import Entry, Manifest, Place, StatesCoder, Store, Writer, exists, key_of, name_of
from stilla.cache.blobs import encode
from stilla.cache.shards import digest_of
from stilla.errors import BusyError, CacheError, all_of
from stilla.signals import Batch, Dense, Headed, Signals, Stack
from stilla.tasks.base import Prepared, Segment, Side, Task
from stilla.teachers.cached import Reading
from stilla.teachers.keeping import Keep
from stilla.teachers.live import Teacher
from stilla.teachers.remembering import PartOfTeacher, Remembering, RememberingParts

_LOOK_AGAIN = 10.0
"""Seconds after which a process looks for what others have written."""
_PARTS = 100


class CapturingTeacher(Remembering):
    """Answers from the cache; what is not there yet, the live teacher answers, and it is stored.

    Every answer has the form that is stored, also the first time: the loss means the same in every epoch, and a run
    that was stopped continues as if it had not been. `flush` brings everything to disk that was answered so far. A place
    with the hidden states of more layers than are asked for serves as well, and is added to as it is.

    Raises:
        CacheError: the place holds another cache, or somebody else writes there.
    """

    def __init__(
        self,
        live: Teacher,
        task: Task,
        path: str | Path,
        keep: Keep,
        fingerprint: Mapping[str, Any],
        *,
        temperature: float = 1.0,
        part: str = "0",
        shared: bool = False,
        check_alignment: bool = False,
        **limits: int,
    ) -> None:
        """`part`: of the cache that this process writes. `shared`: others may write to it at the same time, and each
        takes a part of its own; else a second one is refused. `check_alignment`: as for `CachedTeacher`. `limits`: a
        shard's size (`shard_bytes`, `shard_segments`)."""
        self.live = live
        self.task = task
        self.keep = keep
        self.place = Place(path)
        self.fingerprint = dict(fingerprint)
        self.temperature = temperature
        self.part = part
        self.shared = shared
        self.limits = limits
        self.answered = 0
        """Pieces that the live teacher was asked for and that were not known."""
        self._device: torch.device | str = "cpu"
        self._opened: _Opened | None = None
        self._writer: Writer | None = None
        self._written = -1
        self._looked = time.monotonic()
        if len(keep.states) > 1:
            raise CacheError(f"a cache holds the hidden states of one stack of layers, and the objectives compare those of "
                             f"{all_of(list(keep.states))}. Compare one of them (`layer_map` of the objective), or ask the "
                             "teacher as the training goes (no capture, cache: none)")
        if exists(self.place):  # known to fit before the first step
            store = Store(self.place)
            self._refuse_other_form(store.manifest)  # first: other forms depend on other things, on seeds for one
            store.refuse_other(self.fingerprint)
            if there := store.manifest.states:  # more layers than are compared here, of which all have to be added to
                self.keep = replace(keep, states=there.layers, states_dtype=there.dtype, pooling=there.pooling)
            self._open(store, check_alignment=check_alignment)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signals:
        segments = self.task.segments(batch)
        keys = [key_of(segment.content) for segment in segments]
        found = self._known(keys)
        if any(one is None for one in found):
            fresh = self._asked(batch, segments, keys)
            found = [old if old is not None else new for old, new in zip(found, fresh, strict=True)]
        assert self._opened is not None
        return self._opened.reading.signals([one for one in found if one is not None], segments, batch)

    def to(self, device: torch.device | str) -> None:
        self.live.to(device)
        self._device = device
        if self._opened is not None:
            self._opened.reading.to(device)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._see_written()

    def close(self) -> None:
        if self._writer is not None:
            if self._opened is not None:  # else it could not be read, which somebody is being told
                self.flush()
            self._writer.close()
            self._writer = None

    def holds(self, batch: Batch) -> bool:
        return None not in self._known([key_of(segment.content) for segment in self.task.segments(batch)])

    def _known(self, keys: Sequence[bytes]) -> list[tuple[int, memoryview] | None]:
        if self._opened is None:
            return [None] * len(keys)
        store, pending = self._opened.store, self._writer.pending if self._writer else {}
        places = store.find(keys)
        if self.shared and (places < 0).any() and time.monotonic() - self._looked > _LOOK_AGAIN:
            store.refresh()
            places, self._looked = store.find(keys), time.monotonic()
        stored = iter(store.read(places[places >= 0]))
        waiting = (pending.get(key) for key in keys)
        return [next(stored) if place >= 0 else None if one is None else (one.rows, memoryview(one.blob))
                for place, one in zip(places, waiting, strict=True)]

    def _asked(self, batch: Batch, segments: Sequence[Segment], keys: Sequence[bytes]) -> list[tuple[int, memoryview]]:
        said = self.live(batch)
        said = self.task.remembered(said, batch)
        assert said.logits is not None
        manifest = self._opened.store.manifest if self._opened else self._begun(said)
        if self._writer is None:
            self._writer = self._new_writer(manifest)
        if self._opened is None:
            self._open(Store(self.place))
        assert self._opened is not None
        kept = self.keep.kept(said.logits, segments, keys)
        blobs = [encode(manifest, kept, segment.rows, self._states(said, segment, batch)) for segment in segments]
        rows = [segment.rows.stop - segment.rows.start for segment in segments]
        known = self._opened.store.find(keys)
        for key, count, blob, place in zip(keys, rows, blobs, known, strict=True):
            if place < 0 and key not in self._writer.pending:
                self._writer.add(Entry(key, count, blob))
                self.answered += 1
        self._see_written()
        return [(count, memoryview(blob)) for count, blob in zip(rows, blobs, strict=True)]

    def _states(self, said: Signals, segment: Segment, batch: Batch) -> dict[str, torch.Tensor] | None:
        if not self.keep.states:
            return None
        ((stack, indices),) = self.keep.states.items()
        mask = self.task.stack_mask(batch, Side.TEACHER, stack)
        states = said.stacks[stack].hidden_states
        if (how := self.keep.pooling) is not None:
            here = slice(segment.example, segment.example + 1)
            one = Stack([state[here] for state in states], None if mask is None else mask[here])
            return {f"{stack}/{index}": one.pooled(index, how) for index in indices}
        places: Any = segment.positions
        if places is None:
            places = slice(None) if mask is None else mask[segment.example].nonzero().squeeze(1)
        return {f"{stack}/{index}": states[index][segment.example, places] for index in indices}

    def _begun(self, said: Signals) -> Manifest:
        """What the cache holds, as the teacher's first answer shows it."""
        assert said.logits is not None
        widths = {name: tuple(state.shape[2] for state in stack.hidden_states) for name, stack in said.stacks.items()}
        states = {f"{stack}/{index}": widths[stack][index]
                  for stack, indices in self.keep.states.items() for index in indices}
        classes = said.logits.logits.shape[1] if isinstance(said.logits, Dense) else self.task.teacher_classes()
        classes = said.logits.head.classes if isinstance(said.logits, Headed) else classes
        coder = self.keep.coder(said.logits, classes)
        stored = StatesCoder(states, self.keep.states_dtype, self.keep.pooling) if states else None
        return Manifest(
            self.fingerprint, coder, stored, classes, widths if states else {},
            self._head(said) if self.keep.form == "hidden" else None)

    def _head(self, said: Signals) -> dict[str, Any]:
        assert isinstance(said.logits, Headed)
        head = said.logits.head
        tensors = {"weight": head.weight} if head.bias is None else {"weight": head.weight, "bias": head.bias}
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        digest = digest_of(content)
        file = f"head-{digest}.safetensors"
        if file not in self.place.names():
            self.place.write(file, content, by=self.part)
        return {"file": file, "digest": digest, "scale": head.scale, "softcap": head.softcap, "used": head.used,
                "product": name_of(said.logits.hidden.dtype)}

    def _open(self, store: Store, *, check_alignment: bool = False) -> None:
        """`check_alignment`: of what lies there; what is only now being written stands where it was asked."""
        self._refuse_other_form(store.manifest)
        reading = Reading(self.place, store.manifest, self.task, self.temperature, check_alignment=check_alignment)
        reading.to(self._device)
        self._opened = _Opened(store, reading)

    def _new_writer(self, manifest: Manifest) -> Writer:
        """Only where something is missing: any number of runs may read a cache that is complete."""
        for number in range(_PARTS):
            try:
                part = self.part if number == 0 else f"{self.part}.{number}"
                return Writer(self.place, manifest, part=part, **self.limits)
            except BusyError:
                if not self.shared or number == _PARTS - 1:
                    raise
        raise AssertionError

    def _see_written(self) -> None:
        assert self._writer is not None
        assert self._opened is not None
        if self._writer.number != self._written:
            self._opened.store.refresh()
            self._written = self._writer.number

    def _refuse_other_form(self, manifest: Manifest) -> None:
        there, wanted = (manifest.logits.plain() if manifest.logits else {}), self.keep
        differing: dict[str, Any] = {"kind": wanted.form}
        if wanted.form == "top_k":
            differing |= {"k": min(wanted.k, manifest.classes), "temperatures": tuple(wanted.temperatures)}
        if wanted.form == "samples":
            differing |= {"samples": wanted.samples}
        changed = [f"{name}: {_said(there.get(name))} -> {_said(value)}"
                   for name, value in differing.items() if there.get(name) != value]
        stored = set(manifest.states.widths if manifest.states else {})
        states = {f"{stack}/{index}" for stack, indices in wanted.states.items() for index in indices}
        changed += [f"hidden states: {_said(sorted(stored))} -> {_said(sorted(states))}"] if states - stored else []
        pooled = manifest.states.pooling if manifest.states else None
        if stored and states and pooled != wanted.pooling:
            changed.append(f"pooling: {_said(pooled)} -> {_said(wanted.pooling)}")
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise CacheError(f"{self.place.path} holds another form. What differs:\n{listed}\nGive another cache.path, ask "
                             "for what is stored, or remove this folder if nobody needs it")


def _said(value: Any) -> str:
    listed = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")
    return listed or "nothing"


@dataclass(frozen=True)
class _Opened:
    """What there is once the first answer has shown what the cache holds."""

    store: Store
    reading: Reading


def capturing(
    live: Teacher, task: Task, places: Mapping[str, str], keep: Keep, made_from: Mapping[str, Mapping[str, Any]], **how: Any
) -> Remembering:
    """A teacher that remembers; of several tasks, each in its own place. `places`, `made_from`: by the names of the tasks, of
    which a single one has none. `how`: as `CapturingTeacher` takes it.

    Raises:
        CacheError: as `CapturingTeacher`.
    """
    if "" in places:
        return CapturingTeacher(live, task, places[""], keep, made_from[""], **how)
    return RememberingParts(live, task, {
        name: CapturingTeacher(PartOfTeacher(live, task, name), own, places[name], keep, made_from[name], **how)
        for name, own in task.by_name.items()})


def capture(
    teacher: Remembering, prepared: Prepared, *, batch_size: int, device: torch.device, share: tuple[int, int] = (0, 1)
) -> Iterator[int]:
    """Everything of a prepared split into the teacher's cache, in batches of fixed examples; gives how many are done.

    `share`: this process's number and the number of processes, which take the batches in turns.

    A capture that is begun again skips the batches whose every piece is there. The others are computed as the same
    whole batches, so that what is written does not depend on where it was stopped.

    Raises:
        CacheError: the split changes at random from epoch to epoch.
    """
    refuse_random(prepared)
    teacher.to(device)
    for number, (view, chosen) in enumerate(asked_about(prepared, batch_size)):
        if number % share[1] == share[0]:
            batch = batch_of(prepared, view, chosen)
            if not teacher.holds(batch):
                teacher(batch.to(device))
        yield len(chosen)
    teacher.flush()


def asked_about(prepared: Prepared, batch_size: int) -> Iterator[tuple[int, list[int]]]:
    """The view and the examples of every batch, all of one view before the next."""
    for view in range(prepared.views or 1):
        for chosen in batches_of(prepared, batch_size):
            yield view, chosen


def batch_of(prepared: Prepared, view: int, chosen: Sequence[int]) -> Batch:
    """These examples as they are in this view of them."""
    if prepared.on_epoch is not None:
        prepared.on_epoch(view)
    return prepared.collate([prepared.examples[index] for index in chosen])


def batches_of(prepared: Prepared, batch_size: int) -> Iterator[list[int]]:
    """The examples of every batch: fixed by the data alone, similar lengths together, the longest first."""
    order = list(range(len(prepared)))
    if prepared.lengths is not None:
        lengths = prepared.lengths
        order.sort(key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def refuse_random(prepared: Prepared) -> None:
    """Raises:
        CacheError: examples that are never the same twice cannot be found again.
    """
    if prepared.changes and prepared.views is None:
        raise CacheError("a cache finds the teacher's answers by what it was asked, and these examples change at random "
                         "in every epoch: nothing would ever be found. Use data.views: 8 (eight forms of each, drawn once), "
                         "data.augment: none (and fixed masks), or cache: none")
