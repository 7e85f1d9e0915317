"""Several processes that train together, on this machine."""

from __future__ import annotations

import os
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
               "-m", program, str(folder), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False,
        env={**environment, "OMP_NUM_THREADS": "1", **({"ACCELERATE_USE_CPU": "true"} if cpu else {})})
    said = [line for line in done.stderr.splitlines() if line.startswith("[rank0]")] or done.stderr.splitlines()
    assert done.returncode == 0, "\n".join(said[-60:])
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]
