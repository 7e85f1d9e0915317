"""The energy that answering takes: measured where the machine says it, else estimated, and always by name."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

RAPL = Path("/sys/class/powercap")

JOULES_PER_FLOP = {"cpu": 1e-10, "cuda": 1e-11}
"""Assumed where nothing can be measured: 10 GFLOP per joule on a CPU (1 TFLOP/s at 100 W), 100 on a GPU."""


MEASURED, STATED = "measured", "stated"
"""How the words begin that say how a number was obtained."""


class Meter(ABC):
    """Counts energy from an arbitrary zero."""

    name: ClassVar[str]

    @abstractmethod
    def read(self) -> float:
        """Joules so far."""


class RaplMeter(Meter):
    """Intel's and AMD's counters of all processor packages, in microjoules; they wrap."""

    name = "RAPL: whole processor packages, idle power and other processes included"

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._range = [int((one / "max_energy_range_uj").read_text()) for one in packages]
        self._last = self._counters()
        self._total = 0

    def read(self) -> float:
        now = self._counters()
        self._total += sum((after - before) % (size + 1) for before, after, size in
                           zip(self._last, now, self._range, strict=True))
        self._last = now
        return self._total / 1e6

    def _counters(self) -> list[int]:
        return [int((one / "energy_uj").read_text()) for one in self._packages]


class NvmlMeter(Meter):
    """NVIDIA's counter of one GPU, in millijoules."""

    name = "NVML: the whole GPU, idle power and other processes included"

    def __init__(self, nvml: Any, device: torch.device) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        # by uuid: NVML counts GPUs that CUDA_VISIBLE_DEVICES hides
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.read()

    def read(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


def find_meter(device: torch.device, rapl: Path = RAPL) -> Meter | None:
    """The counter for this device, if there is one that may be read."""
    if device.type == "cuda":
        if importlib.util.find_spec("pynvml") is None:
            return None
        nvml = importlib.import_module("pynvml")
        try:
            return NvmlMeter(nvml, device)
        except nvml.NVMLError:  # an old GPU, or a container that may not ask
            return None
    if device.type != "cpu":
        return None
    try:
        packages = [zone for zone in sorted(rapl.glob("intel-rapl:*"))
                    if (zone / "name").read_text().startswith("package")]
        return RaplMeter(packages) if packages else None
    except OSError:  # most systems let only root read it
        return None


@dataclass(frozen=True)
class Energy:
    """Joules per 1,000 examples, and how the number was obtained."""

    joules: float
    method: str


def measured(meter: Meter, work: Callable[[], int]) -> Energy:
    """`work` answers examples for a while and says how many."""
    before = meter.read()
    examples = work()
    return Energy(1000 * (meter.read() - before) / examples, f"{MEASURED} ({meter.name})")


def stated(watts: float, seconds: float) -> Energy:
    """At the power that somebody says the machine has at work. `seconds`: for one example."""
    return Energy(1000 * watts * seconds, f"{STATED}, not measured: {watts:g} W while it works")


def estimated(flops: float, device: torch.device) -> Energy | None:
    """From the FLOPs of one example; None for a kind of device that nothing is assumed about."""
    rate = JOULES_PER_FLOP.get(device.type)
    if rate is None:
        return None
    method = f"estimated, not measured: FLOPs at an assumed {1e-9 / rate:.0f} GFLOP per joule"
    return Energy(1000 * flops * rate, method)
