"""Several processes that train together, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tests.forked import servers

SECONDS = 600


def launch(folder: Path, processes: int, program: str, *arguments: object, cpu: bool = True) -> list[Any]:
    """Run a module of the tests with the folder before its arguments; what each of its processes left there.

    They find each other by what torchrun and accelerate's launcher put into the environment.

    cpu: whether accelerate is told to use processors; without, DeepSpeed uses them.
    """
    folder.mkdir()
    asked = servers(processes)
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost",
             "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true" if cpu else "false"}
    running = {rank: server.start(program, [folder, *arguments], {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                                  folder / f"rank{rank}.log")
               for rank, server in enumerate(asked)}
    failed, until = None, time.monotonic() + SECONDS
    while running:
        for rank in list(running):
            code = asked[rank].ended(within=0.01)
            if code is not None:
                del running[rank]
            late = time.monotonic() > until
            if failed is None and (code or late):
                failed = rank  # the others would wait for it
                for process in running.values():
                    with suppress(ProcessLookupError):  # it has just ended by itself
                        os.killpg(process, signal.SIGKILL)
    assert failed is None, "\n".join((folder / f"rank{failed}.log").read_text().splitlines()[-60:])
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        port: int = bound.getsockname()[1]
        return port
