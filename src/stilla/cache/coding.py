"""What of a teacher's answer is stored, and how: one coder per form, a few numbers describe it.

A coder writes the rows of one segment as bytes and reads the bytes of many segments at once. What each form keeps:

- `DenseCoder`: every logit, as float32 (exact), bfloat16 or float16.
- `HiddenCoder`: what enters the head, as it is (exact) or rounded; the head itself is stored once beside the segments.
- `TopKCoder`: ids exact, the distances of their logits from the row's largest in 8 bits, and for each wanted
  temperature the exact log-odds of the mass outside.
- `SamplesCoder`: ids, counts and the entropy, all exact.
- `StatesCoder`: hidden states of chosen layers, and any other vectors by name (embeddings).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from stilla.cache import bits
from stilla.errors import CacheError, one_of
from stilla.signals import Pooling, Samples, TopK

Blob = memoryview
Kept = TypeVar("Kept")

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

STEPS = 254
"""Steps that a row's range of logits is divided into; 255 says that a class has no mass at all."""
NOTHING = 255


@dataclass(frozen=True)
class Ranked:
    """The k likeliest classes of every row, and what temperatures need: the stored form of top-k.

    ids: sorted, without repetition. below: by how much a class's logit is below the row's largest, >= 0.
    odds: for each of the temperatures the log of the mass outside over the mass inside; -inf where k is all classes.
    """

    ids: Int[Tensor, "rows k"]
    below: Float[Tensor, "rows k"]
    odds: Float[Tensor, "rows temperatures"]

    def at(self, temperature: float, temperatures: Sequence[float]) -> TopK:
        """The distribution at one of the temperatures.

        Raises:
            CacheError: the mass outside was not stored for this temperature.
        """
        if temperature not in temperatures:
            raise CacheError(
                f"got temperature {temperature:g}; this cache holds top-k with the mass outside at "
                f"{one_of([f'{one:g}' for one in temperatures])}, and it cannot be derived for others. Add it to "
                "cache.temperatures and capture into another place, use a stored temperature, or cache: hidden")
        odds = self.odds[:, tuple(temperatures).index(temperature)]
        # normalised to the exact mass inside, so that all of the distribution adds up to one
        inside = torch.log_softmax(-self.below / temperature, -1) + functional.logsigmoid(-odds)[:, None]
        return TopK(self.ids, inside, functional.logsigmoid(odds), temperature)


class Coder(ABC, Generic[Kept]):
    """Writes rows of one segment, reads the rows of several. `kind` and its fields describe it in a cache's manifest."""

    kind: ClassVar[str]

    @abstractmethod
    def encode(self, kept: Kept, start: int, end: int) -> bytes:
        """Rows from `start` up to `end` as bytes."""

    @abstractmethod
    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> Kept:
        """The rows of all blobs, end to end.

        Raises:
            CacheError: a blob that cannot have been written by this coder.
        """

    @abstractmethod
    def row_bytes(self) -> float:
        """About how many bytes a row takes."""

    def plain(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class DenseCoder(Coder[Tensor]):
    """(rows, classes) logits."""

    classes: int
    dtype: str = "float32"
    kind: ClassVar[str] = "dense"

    def encode(self, kept: Tensor, start: int, end: int) -> bytes:
        _refuse_shape(kept, self.classes)
        return _bytes(kept[start:end], self.dtype)

    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> Tensor:
        return _tensor(blobs, rows, self.classes, self.dtype)

    def row_bytes(self) -> float:
        return self.classes * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class HiddenCoder(Coder[Tensor]):
    """(rows, width) hidden states that enter the head."""

    width: int
    dtype: str = "bfloat16"
    kind: ClassVar[str] = "hidden"

    def encode(self, kept: Tensor, start: int, end: int) -> bytes:
        _refuse_shape(kept, self.width)
        return _bytes(kept[start:end], self.dtype)

    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> Tensor:
        return _tensor(blobs, rows, self.width, self.dtype)

    def row_bytes(self) -> float:
        return self.width * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TopKCoder(Coder[Ranked]):
    """Bytes of a segment of n rows: n odds per temperature and n ranges (float32), n·k steps, the sorted ids.

    The ids of all rows are one increasing sequence (row · classes + id). A log-probability inside errs by at most
    the row's range / 508 against the others; the mass inside and outside is exact.
    """

    classes: int
    k: int
    temperatures: tuple[float, ...] = (1.0,)
    kind: ClassVar[str] = "top_k"

    def encode(self, kept: Ranked, start: int, end: int) -> bytes:
        _refuse_shape(kept.ids, self.k)
        ids, below, odds = (one[start:end].numpy(force=True) for one in (kept.ids, kept.below, kept.odds))
        if (np.diff(ids) <= 0).any() or (ids < 0).any() or (ids >= self.classes).any():
            raise CacheError(f"expected sorted ids from 0 to {self.classes - 1} without repetition in every row")
        ranges = np.where(np.isfinite(below), below, 0).max(1).astype(np.float32)
        scale = STEPS / np.where(ranges > 0, ranges, 1)
        steps = np.where(np.isfinite(below), np.rint(np.nan_to_num(below, posinf=0) * scale[:, None]), NOTHING)
        lines = ids + np.arange(len(ids))[:, None] * self.classes
        return b"".join((
            odds.astype(np.float32).tobytes(), ranges.tobytes(), steps.astype(np.uint8).tobytes(),
            bits.pack_sorted(lines.reshape(-1), len(ids) * self.classes).tobytes()))

    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> Ranked:
        parts = [self._decode(blob, count) for blob, count in zip(blobs, rows, strict=True)]
        ids, below, odds = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
        return Ranked(ids, below, odds)

    def _decode(self, blob: Blob, rows: int) -> tuple[Any, Any, Any]:
        temperatures, universe = len(self.temperatures), rows * self.classes
        floats = 4 * rows * (temperatures + 1)
        _refuse_size(blob, floats + rows * self.k + bits.sorted_size(rows * self.k, universe))
        head = np.frombuffer(blob[:floats], np.float32)
        odds, ranges = head[: rows * temperatures].reshape(rows, temperatures), head[rows * temperatures :]
        rest = np.frombuffer(blob[floats:], np.uint8)
        steps = rest[: rows * self.k].reshape(rows, self.k)
        below = steps * (ranges / np.float32(STEPS))[:, None]
        below[steps == NOTHING] = np.inf
        lines = bits.unpack_sorted(rest[rows * self.k :], universe, rows * self.k).reshape(rows, self.k)
        return lines - np.arange(rows)[:, None] * self.classes, below, odds

    def row_bytes(self) -> float:
        return bits.sorted_size(1000 * self.k, 1000 * self.classes) / 1000 + self.k + 4 * (1 + len(self.temperatures))


@dataclass(frozen=True)
class SamplesCoder(Coder[Samples]):
    """Bytes of a segment of n rows: n entropies (float32), n·m bits that mark where among the m draws, sorted by id,
    a new id begins, and the sorted ids of all rows."""

    classes: int
    samples: int
    kind: ClassVar[str] = "samples"

    def encode(self, kept: Samples, start: int, end: int) -> bytes:
        ids, counts, entropy = (one[start:end].numpy(force=True) for one in (kept.ids, kept.counts, kept.entropy))
        counts = counts.astype(np.int64)
        if (counts.sum(1) != self.samples).any():
            raise CacheError(f"expected {self.samples} samples in every row, got {counts.sum(1).tolist()[:5]} ...")
        row, place = np.nonzero(counts)
        lines = ids[row, place] + row * self.classes
        order = np.argsort(lines, kind="stable")
        firsts = np.cumsum(counts[row, place][order]) - counts[row, place][order]
        marks = np.zeros(len(ids) * self.samples, np.uint8)
        marks[firsts] = 1
        return b"".join((
            entropy.astype(np.float32).tobytes(), np.packbits(marks, bitorder="little").tobytes(),
            bits.pack_sorted(lines[order], len(ids) * self.classes).tobytes()))

    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> Samples:
        parts = [self._decode(blob, count) for blob, count in zip(blobs, rows, strict=True)]
        widest = max((one[0].shape[1] for one in parts), default=0)
        ids, counts = (np.concatenate([np.pad(one[place], ((0, 0), (0, widest - one[place].shape[1])))
                                       for one in parts]) for place in (0, 1))
        entropy = np.concatenate([one[2] for one in parts])
        return Samples(*map(torch.from_numpy, (ids, counts, entropy)))

    def _decode(self, blob: Blob, rows: int) -> tuple[Any, Any, Any]:
        draws, start = rows * self.samples, 4 * rows
        marked = bits.size_of(draws, 1)
        _refuse_size(blob, start + marked, at_least=True)
        entropy = np.frombuffer(blob[:start], np.float32)
        rest = np.frombuffer(blob[start:], np.uint8)
        firsts = np.flatnonzero(np.unpackbits(rest[:marked], count=draws, bitorder="little"))
        if len(firsts) < rows or (rows and (firsts[0] != 0 or len(np.unique(firsts // self.samples)) < rows)):
            raise CacheError("a row without samples: this was not written by a cache of samples")
        row = firsts // self.samples
        lines = bits.unpack_sorted(rest[marked:], rows * self.classes, len(firsts))
        place = np.arange(len(firsts)) - np.searchsorted(row, row)
        width = int(place.max(initial=-1)) + 1
        ids, counts = np.zeros((rows, width), np.int64), np.zeros((rows, width), np.float32)
        ids[row, place] = lines - row * self.classes
        counts[row, place] = np.diff(firsts, append=draws)
        return ids, counts, entropy

    def row_bytes(self) -> float:
        unique = min(self.classes, max(1, self.samples // 4))  # peaked distributions draw the same ids again and again
        return bits.sorted_size(1000 * unique, 1000 * self.classes) / 1000 + self.samples / 8 + 4


@dataclass(frozen=True)
class StatesCoder(Coder[Mapping[str, Tensor]]):
    """Named vectors per position or example: hidden states of chosen layers (`layers/3`), embeddings."""

    widths: Mapping[str, int]
    dtype: str = "bfloat16"
    pooling: Pooling | None = None
    """How the positions of a piece became one vector; None: there is a vector for each."""
    kind: ClassVar[str] = "states"

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Which are stored, by stack."""
        found: dict[str, list[int]] = {}
        for name in self.widths:
            stack, _, index = name.rpartition("/")
            found.setdefault(stack, []).append(int(index))
        return {stack: tuple(sorted(some)) for stack, some in found.items()}

    def encode(self, kept: Mapping[str, Tensor], start: int, end: int) -> bytes:
        for name, width in self.widths.items():
            _refuse_shape(kept[name], width)
        return b"".join(_bytes(kept[name][start:end], self.dtype) for name in sorted(self.widths))

    def decode(self, blobs: Sequence[Blob], rows: Sequence[int]) -> dict[str, Tensor]:
        found, start = {}, [0] * len(blobs)
        for name in sorted(self.widths):
            size = self.widths[name] * DTYPES[self.dtype].itemsize
            ends = [first + count * size for first, count in zip(start, rows, strict=True)]
            pieces = [blob[first:end] for blob, first, end in zip(blobs, start, ends, strict=True)]
            found[name] = _tensor(pieces, rows, self.widths[name], self.dtype)
            start = ends
        return found

    def row_bytes(self) -> float:
        return sum(self.widths.values()) * DTYPES[self.dtype].itemsize

    def plain(self) -> dict[str, Any]:
        described = super().plain()
        if self.pooling is None:
            del described["pooling"]  # as before there was any: what was stored then is of the same form
        return described


def name_of(dtype: torch.dtype) -> str:
    """The name that stands for a precision in a manifest."""
    return next(name for name, known in DTYPES.items() if known == dtype)


Coders = DenseCoder | HiddenCoder | TopKCoder | SamplesCoder
_KINDS: dict[str, type[Any]] = {one.kind: one for one in (DenseCoder, HiddenCoder, TopKCoder, SamplesCoder, StatesCoder)}


def coder_from(plain: Mapping[str, Any]) -> Any:
    """The coder that a manifest describes.

    Raises:
        CacheError: a form that this version does not know.
    """
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    try:
        return _KINDS[str(fields.pop("kind"))](**fields)
    except (KeyError, TypeError) as error:
        raise CacheError(f"got the form {dict(plain)}; this version of Stilla knows {one_of(list(_KINDS))}") from error


def _bytes(rows: Tensor, dtype: str) -> bytes:
    stored = rows.detach().to("cpu", DTYPES[dtype]).contiguous()
    return stored.flatten().view(torch.uint8).numpy().tobytes()


def _tensor(blobs: Sequence[Blob], rows: Sequence[int], width: int, dtype: str) -> Tensor:
    size = width * DTYPES[dtype].itemsize
    for blob, count in zip(blobs, rows, strict=True):
        _refuse_size(blob, count * size)
    joined = bytearray().join(blobs)  # a copy: what is mapped into memory may not be written to
    if not joined:
        return torch.zeros(0, width, dtype=DTYPES[dtype])
    return torch.frombuffer(joined, dtype=DTYPES[dtype]).reshape(-1, width)


def _refuse_shape(kept: Tensor, width: int) -> None:
    if kept.dim() != 2 or kept.shape[1] != width:
        raise CacheError(f"got an answer of shape {tuple(kept.shape)}; this cache holds rows of {width}")


def _refuse_size(blob: Blob, size: int, *, at_least: bool = False) -> None:
    if len(blob) < size or (len(blob) > size and not at_least):
        raise CacheError(f"got {len(blob)} bytes for a segment; expected {'at least ' if at_least else ''}{size}")
