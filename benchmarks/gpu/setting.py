"""Where it is asked and how much: a GPU where there is one, all of it small enough for a processor with `--small`."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.found import LeftOutError
from stilla.rows import compiler_problem


@dataclass(frozen=True)
class Setting:
    """small: a try of the program, whose times mean nothing. folder: for what is written meanwhile."""

    device: torch.device
    small: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.type != "cpu"

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32", "bfloat16", "float16")

    def now(self) -> float:
        """Seconds, when everything that was asked of the device is done."""
        self.wait()
        return time.perf_counter()

    def wait(self) -> None:
        if self.on_gpu:
            torch.accelerator.synchronize(self.device)

    def need_gpu(self, why: str) -> None:
        """Raises:
            LeftOutError: there is none.
        """
        if not self.on_gpu:
            raise LeftOutError(f"needs a GPU: {why}")

    def need_compiler(self) -> None:
        if problem := compiler_problem():
            raise LeftOutError(problem)


def chosen(wanted: str, *, small: bool, folder: Path) -> Setting:
    """`auto`: the machine's accelerator, else its processor."""
    there = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return Setting(there if wanted == "auto" else torch.device(wanted), small, folder)


def need(*packages: str) -> None:
    """Raises:
        LeftOutError: one is not installed.
    """
    missing = [one for one in packages if importlib.util.find_spec(one) is None]
    if missing:
        raise LeftOutError(f"not installed: {', '.join(missing)}")
