"""Memory that is there already: what walks over rows need on a CPU is kept, as an accelerator's allocator keeps its own.

The C library hands large blocks back to the system, which zeroes and maps them anew page by page when they are asked for
again. At 152,000 classes that was half of a walk's page faults; the other half is the head's gradient, which the caller gets.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

HELD_BYTES = 2**25 - 2**16
"""The largest block that the C library of most Linux systems learns from, less what it adds to it."""

_free: list[Tensor] = []
"""Bytes that nobody uses, the largest last: as many buffers as were in use at once, each as large as was needed."""
_lock = threading.Lock()


@contextmanager
def borrowed(rows: int, columns: int, like: Tensor) -> Iterator[Tensor]:
    """A (rows, columns) tensor of `like`'s type and device with anything in it, lost at the end."""
    if like.device.type != "cpu":
        yield like.new_empty(rows, columns)
        return
    size = rows * columns * like.dtype.itemsize
    with _lock:
        memory = _free.pop() if _free else None
    if memory is None or len(memory) < size:
        memory = None  # before the larger one is there
        memory = torch.empty(size, dtype=torch.uint8)
    try:
        yield memory[:size].view(like.dtype).view(rows, columns)
    finally:
        with _lock:
            _free.append(memory)
            _free.sort(key=len)


def kept_bytes() -> int:
    """What is kept for the next walk."""
    return sum(map(len, _free))


@functools.cache
def hold_freed_memory() -> None:
    """Have the C library keep what a block of rows frees for the next one, once for the process.

    glibc returns the top of its heap to the system, and every block's intermediate results would be faulted in again page
    by page: measured with one thread, 44 % of the elementwise time at 32,000 classes, 75 % at 152,000. How much it keeps
    follows from the largest block that was mapped and freed (M_MMAP_THRESHOLD in mallopt(3)); this one is never touched,
    so it costs nothing. Elsewhere it does nothing.
    """
    torch.empty(HELD_BYTES, dtype=torch.uint8)
