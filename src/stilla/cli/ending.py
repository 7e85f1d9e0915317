"""How the process of a command ends: as Python would end it, but without taking a million objects apart first.

Taking them apart takes 1 s on a quiet machine. Freezing them instead (`gc.freeze`) is no way out: a library that counts
its objects when Python has ended (nanobind, which triton brings) takes the frozen ones for leaks, and says so in thirty
lines. Here Python does not get as far as that: threads have ended, what libraries registered with `atexit` (logs,
trackers, children) has run and every open file is written, in Python's own order; then the process is over.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import sys
import threading
from typing import Any

BROKEN = 1
"""The exit code where standard output could not be written to its end."""


def leave(code: object) -> None:
    """End the process with the code of a `SystemExit`; comes back where only Python itself can end it well."""
    if code is not None and not isinstance(code, int):
        return  # words, which Python prints
    if _is_watched() or _has_own_code():
        if not code:
            _part_from_the_others()
        return
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does before anything else: waits for threads
    atexit._run_exitfuncs()
    _write_open_files()
    os._exit((code or 0) if _flushed() else code or BROKEN)


def _is_watched() -> bool:
    """Whether somebody around the command wants to see its end: a debugger, a profiler, coverage."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    if sys.version_info >= (3, 12):
        return any(sys.monitoring.get_tool(number) is not None for number in range(6))
    return False


def _has_own_code() -> bool:
    """Whether a person's own code was imported, whose objects may write when they are taken apart."""
    imports = sys.modules.get("stilla.runtime.imports")
    return imports is not None and bool(imports.imported)


def _part_from_the_others() -> None:
    """Leave the processes that trained together: C++ ends a process whose threads to them outlive Python, and fails it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _write_open_files() -> None:
    """What was written to files that nobody has closed, as it would be when they are taken apart."""
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    standard = (sys.stdout, sys.stderr)  # these come last
    # by type: to ask an object for its class runs code of those that stand for others
    files: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), kinds) and one not in standard]
    texts_first = sorted(files, key=lambda one: not isinstance(one, io.TextIOWrapper))
    for file in texts_first:
        try:
            if not file.closed and file.writable():
                file.flush()
        except (OSError, ValueError):  # nobody is left to tell
            continue


def _flushed() -> bool:
    """Write what waits for standard output and error; whether somebody was there to read it."""
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            whole = False
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)  # libraries in C write through buffers of their own
    return whole
