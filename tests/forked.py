"""Programs of the tests as processes that need not import what trains: forked from servers that have done so once.

A server is an interpreter of its own, never the one that runs the tests, and processes that work together come from several:
so they differ in all that interpreters differ in, the order of sets among it. Launchers themselves are what `test_launch.py`
is about. Also run as a program: a server.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

_SERVERS: list[Server] = []


class Server:
    """An interpreter that forks one process at a time. It ends with the one that started it."""

    def __init__(self) -> None:
        self._server = subprocess.Popen([sys.executable, "-m", "tests.forked"], stdin=subprocess.PIPE, bufsize=0,
                                        stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
                                        cwd=Path(__file__).parents[1])

    def start(self, program: str, arguments: Sequence[object], environment: Mapping[str, str], log: Path) -> int:
        """The number of a process, the first of a group, that runs the module and writes all it says into a file."""
        order = {"program": program, "arguments": [*map(str, arguments)], "environment": {**os.environ, **environment},
                 "folder": os.getcwd(), "log": str(log)}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        return self._read()

    def ended(self, within: float) -> int | None:
        """How the process has ended, as `Popen.returncode` says it; None if it has not yet."""
        return self._read() if select.select([self._server.stdout], [], [], within)[0] else None

    def _read(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def servers(number: int) -> list[Server]:
    """As many, the same for all tests of this process."""
    while len(_SERVERS) < number:
        _SERVERS.append(Server())
    return _SERVERS[:number]


def _serve() -> None:
    import stilla.run  # noqa: F401

    gc.freeze()  # or a collection in a fork would copy all pages
    for line in sys.stdin.buffer:
        process = os.fork()
        if not process:
            return _become(**json.loads(line))
        os.setpgid(process, process)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return None


def _become(program: str, arguments: list[str], environment: dict[str, str], folder: str, log: str) -> None:
    """Run the module as if it were the program, then part from the other processes.

    A process that Python takes apart while gloo's threads still run is sometimes ended by C++ ("terminate called without
    an active exception"), long after it has done its work.
    """
    for path, numbers in ((os.devnull, (0,)), (log, (1, 2))):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for number in numbers:
            os.dup2(opened, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # forks of one server would all draw the same; Python's own generator knows
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _serve()
