"""Where a run happened: versions, machine, threads. What a reader of its numbers needs to repeat them."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from stilla.runtime.processes import processes
from stilla.secrets import without_secrets

PACKAGES = ("stilla", "torch", "transformers", "datasets", "accelerate", "onnxruntime", "scikit-learn", "numpy")


def describe(seed: int) -> dict[str, Any]:
    """Plain facts, by name."""
    facts: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_secrets(" ".join([_program(Path(sys.argv[0])), *sys.argv[1:]])),
        "seed": seed,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "processes": processes().num_processes,
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
    return facts | {name: version for name in PACKAGES if (version := _version(name))}


def _program(started: Path) -> str:
    """As a person types it."""
    return f"python -m {started.parent.name}" if started.name == "__main__.py" else started.name


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
