"""Several processes that train together, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch


def launch(folder: Path, processes: int, program: str, *arguments: object) -> list[tuple]:
    """Run a module of the tests with the folder before its arguments; what each of its processes left there."""
    folder.mkdir()
    # torchrun is what accelerate's launcher starts on CPU, without its configuration
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", program, str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]
