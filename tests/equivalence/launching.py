"""Several processes that train together, on this machine. Also run as a program by launchers, around those of the tests."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def launch(folder: Path, processes: int, program: str, *arguments: object, cpu: bool = True) -> list[Any]:
    """Run a module of the tests with the folder before its arguments; what each of its processes left there.

    cpu: whether accelerate is told to use processors; without, DeepSpeed uses them.
    """
    folder.mkdir()
    # torchrun is what accelerate's launcher starts on CPU, without its configuration
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", "tests.equivalence.launching", program, str(folder), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False,
        env={**environment, "OMP_NUM_THREADS": "1", **({"ACCELERATE_USE_CPU": "true"} if cpu else {})})
    said = [line for line in done.stderr.splitlines() if line.startswith("[rank0]")] or done.stderr.splitlines()
    assert done.returncode == 0, "\n".join(said[-60:])
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]


def _as_launched() -> None:
    """Run the module that is named first as if it were the program, then part from the other processes.

    A process that Python takes apart while gloo's threads still run is sometimes ended by C++ ("terminate called without
    an active exception"), long after it has done its work.
    """
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _as_launched()
