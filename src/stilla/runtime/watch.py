"""A limit of time for code that came with data or a model, and may never end."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Watch:
    """Interrupts Python code of the thread that it was made in, when one of many pieces of work takes too long.

    One thread looks at the clock for all of them, from `with` to its end: a timer for each would cost more than the work.
    What runs in C (`'a' * 10**9` of a template) cannot be interrupted.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread = ctypes.c_ulong(threading.get_ident())
        self._lock = threading.Lock()
        self._due: float | None = None
        self._interrupted = False
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._look, name="stilla-watch", daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._clock.join()

    @contextmanager
    def once(self) -> Iterator[None]:
        """One piece of work.

        Raises:
            TimeoutError: within it, when its time is over.
        """
        with self._lock:
            self._due, self._interrupted = time.monotonic() + self.seconds, False
        try:
            yield
        finally:
            with self._lock:
                self._due = None
                if self._interrupted:  # it may not have come through yet, and must not do so later
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, None)

    def _look(self) -> None:
        while not self._over.wait(min(0.2, self.seconds / 4)):
            with self._lock:
                if self._due is not None and time.monotonic() > self._due:
                    self._due, self._interrupted = None, True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(TimeoutError))
