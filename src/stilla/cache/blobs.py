"""A segment's blob: its rows, and where hidden states are stored too, both of them one after the other."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stilla.cache.store import Manifest
from stilla.errors import CacheError

_SIZES = struct.Struct("<II")  # bytes of the rows, and positions with states


def encode(manifest: Manifest, kept: Any, rows: slice, states: Mapping[str, Tensor] | None = None) -> bytes:
    """`kept`: of the whole batch, in the manifest's form. `states`: of this segment alone, (positions, width) each."""
    said = b"" if manifest.logits is None else manifest.logits.encode(kept, rows.start, rows.stop)
    if manifest.states is None:
        return said
    assert states is not None
    positions = len(next(iter(states.values())))
    return _SIZES.pack(len(said), positions) + said + manifest.states.encode(states, 0, positions)


def decode(
    manifest: Manifest, found: Sequence[tuple[int, memoryview]]
) -> tuple[Any, dict[str, Tensor], list[int]]:
    """Of (rows, blob) pairs: what was kept of all rows, the states of all positions, and how many each blob has.

    Raises:
        CacheError: blobs that cannot have been written with this manifest.
    """
    rows = [count for count, _ in found]
    parts = [_parted(blob) if manifest.states else (blob, memoryview(b""), 0) for _, blob in found]
    kept = None if manifest.logits is None else manifest.logits.decode([part[0] for part in parts], rows)
    positions = [part[2] for part in parts]
    states = manifest.states.decode([part[1] for part in parts], positions) if manifest.states else {}
    return kept, dict(states), positions


def _parted(blob: memoryview) -> tuple[memoryview, memoryview, int]:
    if len(blob) < _SIZES.size:
        raise CacheError(f"got {len(blob)} bytes for a segment with hidden states; expected at least {_SIZES.size}")
    size, positions = _SIZES.unpack(blob[: _SIZES.size])
    return blob[_SIZES.size : _SIZES.size + size], blob[_SIZES.size + size :], positions
