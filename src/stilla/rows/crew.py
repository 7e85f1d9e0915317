"""Several threads at once, each with a single one inside its operations: pieces of work go to whoever is free.

torch cuts every operation into as many parts as there are threads and waits for the slowest, thousands of times in a walk:
beside other busy processes each wait is a time slice of somebody else's. Here a piece is many operations, and a thread that
the system keeps waiting takes fewer of them. What a piece computes depends on the piece alone, so all numbers are the same
whoever took which, and however many there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Piece = Callable[[], object]
Answer = TypeVar("Answer")
MOST = 8
"""So many pieces at once: more would wait for Python between their operations. Further threads go inside the operations."""


def together(pieces: Sequence[Piece], device: torch.device) -> None:
    """Do them all, in any order, as many at once as torch has threads. One after the other where that is the device's part.

    The first exception is raised again when nobody works any more; pieces that had not begun are left out.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or _watched():
        for piece in pieces:
            piece()
        return
    work = _Work(pieces)
    futures = _crew.begin(work.do, min(threads, MOST), threads)
    try:
        wait(futures)
    finally:
        work.stop()  # an interrupt: buffers must not be given away while somebody writes to them
        wait(futures)
    for future in futures:
        future.result()


def found(calls: Sequence[Callable[[], Answer]], device: torch.device) -> list[Answer]:
    """What the calls give, in their order; done as `together` does them."""
    answers: dict[int, Answer] = {}

    def ask(place: int) -> None:
        answers[place] = calls[place]()

    together([partial(ask, place) for place in range(len(calls))], device)
    return [answers[place] for place in range(len(calls))]


def _watched() -> bool:
    """Whether something follows the operations of this thread, and would not see those of others."""
    return bool(is_in_torch_dispatch_mode() or _get_current_function_mode_stack())


class InOrder:
    """A sum over rows whose parts come in any order and are added in that of the rows: the same bits every time."""

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self._waiting: dict[int, tuple[int, Tensor]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def add(self, first: int, last: int, part: Tensor) -> None:
        """Of the rows from `first` to before `last`; what is too early waits."""
        with self._lock:
            self._waiting[first] = last, part
            while self._next in self._waiting:
                self._next, part = self._waiting.pop(self._next)
                self._total += part


class _Work:
    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._left: Iterator[Piece] = iter(pieces)
        self._lock = threading.Lock()
        self._inference = torch.is_inference_mode_enabled()

    def stop(self) -> None:
        with self._lock:
            self._left = iter(())

    def do(self) -> None:
        # modes belong to a thread; a new one computes gradients, and has no autocast
        with torch.inference_mode(self._inference), torch.no_grad():
            while (piece := self._next()) is not None:
                try:
                    piece()
                except BaseException:
                    self.stop()
                    raise

    def _next(self) -> Piece | None:
        with self._lock:
            return next(self._left, None)


class _Crew:
    """The threads, started when they are needed first and kept; a forked process starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size = (0, 0)
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, work: Callable[[], None], number: int, threads: int) -> list[Future[None]]:
        with self._lock:
            if self._pool is None or self._size != (number, threads):
                self._pool = self._started(number, threads)
                self._size = number, threads
            # each in a copy of the caller's context, in which settings of torch's compiler are
            return [self._pool.submit(copy_context().run, work) for _ in range(number)]

    def _started(self, number: int, threads: int) -> ThreadPoolExecutor:
        if self._pool is not None:
            self._pool.shutdown(wait=False)  # what was begun is finished
        all_there = threading.Barrier(number + 1)

        def alone() -> None:
            torch.get_num_threads()  # or the first operation of this thread would set what is set below
            torch.set_num_threads(threads // number)  # of this thread, and of those that start from now on
            all_there.wait()

        pool = ThreadPoolExecutor(number, "stilla-rows", initializer=alone)
        for _ in range(number):
            pool.submit(int)
        all_there.wait()
        torch.set_num_threads(threads)  # so that the latter get what they would have got
        return pool


_crew = _Crew()


def _forget() -> None:
    global _crew
    _crew = _Crew()


os.register_at_fork(after_in_child=_forget)
