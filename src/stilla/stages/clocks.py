"""What work takes on this machine: seconds by the clock and of the processor, joules where the machine counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stilla.evaluate.energy import find_meter
from stilla.runtime.processes import processes


class Clocks:
    """Since they were made. Beside other work only the processor's seconds say what something costs; joules are of the whole
    device, whoever else works on it."""

    def __init__(self, device: torch.device) -> None:
        self._started, self._used = time.monotonic(), time.process_time()
        self._meter = find_meter(device)
        self._joules = 0.0 if self._meter is None else self._meter.read()

    def read(self) -> dict[str, float]:
        found = {"seconds": round(time.monotonic() - self._started, 3),
                 "processor_seconds": round(time.process_time() - self._used, 3)}
        return found if self._meter is None else {**found, "joules": round(self._meter.read() - self._joules, 3)}

    def nothing(self) -> dict[str, float]:
        """What a log says where the counting begins."""
        return {**dict.fromkeys(self.read(), 0.0), "entered": 0, "asked": 0}


@contextmanager
def timed(
    log: Callable[[dict[str, Any]], None], stage: str, more: Callable[[], Mapping[str, Any]] = dict
) -> Iterator[None]:
    """Writes into a run's log what work has taken that is no training, also where it is broken off; not that of several
    processes, each of which does a share. `more`: what else is known of all of it."""
    state = processes()
    if state.num_processes > 1:
        yield
        return
    clocks = Clocks(state.device)
    log({"stage": stage, "step": 0, **clocks.nothing()})
    over = False
    try:
        yield
        over = True
    finally:
        taken = {"stage": stage, "step": 0, **clocks.read(), "entered": 0}
        log({**taken, **more()} if over else taken)
