"""How long short calls take on this machine by itself, also while it does something else: the least of several, in turns.

Other work comes and goes, so the least of several calls is the steadiest number; calls of every kind are made in turns, so
that a busy moment falls on all kinds alike. What disturbs most are threads that wait for each other in a loop while others
have their processors: beside a training, two threads took 4 to 60 times what they take by themselves, by the clock of the
processor too. One thread waits for nobody; it took the same within 7 %, beside whatever else. So it is timed as well:
several take no longer than one; and where the machine is seen to be shared, √n times less is taken for what n of them take,
which lies between no help of the others and all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

FEWEST, MOST = 3, 40
"""Times that a call is made."""
BESIDE = 15
"""Fewest times for one thread on a shared machine: short calls agree by chance there while another has the core's units."""
AGREED = 1.1
"""How near the two least times of a call lie when nothing disturbs."""
SHARED = 1.15
"""Wall-clock time by processor time from which on the machine is taken to be shared."""
SHORT = 0.3
"""Seconds of calls after which no other is made only to see about how long one takes."""
PATIENCE = 8.0
"""Seconds to go on for where the times do not agree."""
LONGEST = 60.0
"""Seconds that a single call in one thread may be feared to take."""
FEW = 4
"""Threads up to which it costs little to time a single one always; more are, where the machine is seen to be shared."""


@dataclass
class Stopwatch:
    """Seconds of calls on a device, as if it had the machine for itself.

    `used`: seconds of the processor so far; `wall`: by the clock.
    """

    device: str
    used: Callable[[], float] = time.thread_time
    wall: Callable[[], float] = time.perf_counter
    taken: float = field(default=0.0, init=False)
    """Of all calls so far, by the clock, and (`worked`) of the processor."""
    worked: float = field(default=0.0, init=False)

    def once(self, run: Callable[[], object]) -> float:
        """Seconds of one call.

        On a CPU those that its thread had a processor: it has a share in every computation, and while others have the
        processor its clock stands.
        """
        started, at = self._used(), self.wall()
        run()
        used = self._used() - started
        self.worked += used
        self.taken += self.wall() - at
        return used

    def about(self, run: Callable[[], object]) -> float:
        """The least seconds of a few calls, of a single one where it is long already."""
        times = [self.once(run)]
        while len(times) < FEWEST and sum(times) < SHORT:
            times.append(self.once(run))
        return min(times)

    def least(self, runs: Sequence[Callable[[], object]]) -> list[float]:
        """The least seconds of each of several calls."""
        found = self._in_turns(runs)
        threads = torch.get_num_threads()
        if self.device != "cpu" or threads == 1 or not (threads <= FEW or self.shared) or threads * min(found) > LONGEST:
            return found
        torch.set_num_threads(1)
        try:
            if self.once(runs[0]) * len(runs) > PATIENCE:
                return found
            help_of_others = threads**0.5 if self.shared else 1.0
            return [min(several, one / help_of_others) for several, one in zip(found, self._in_turns(runs, alone=True))]
        finally:
            torch.set_num_threads(threads)

    def _in_turns(self, runs: Sequence[Callable[[], object]], *, alone: bool = False) -> list[float]:
        """Made until they agree, or patience ends. `alone`: in one thread, whose clock nobody disturbs."""
        times: list[list[float]] = [[] for _ in runs]
        begun = self.wall()
        while True:
            for run, found in zip(runs, times):
                found.append(self.once(run))
            rounds, spent = len(times[0]), self.wall() - begun
            fewest = BESIDE if alone and self.shared else FEWEST
            enough = rounds >= fewest and (alone or not self.shared) and all(map(_agree, times))
            hopeless = self.shared and not alone and spent > PATIENCE / 4
            if enough or hopeless or rounds >= MOST or spent > PATIENCE:
                return [min(found) for found in times]

    @property
    def shared(self) -> bool:
        """Whether something else was seen to use the processor meanwhile."""
        return self.device == "cpu" and self.taken > SHARED * self.worked

    def _used(self) -> float:
        if self.device != "cpu":
            torch.accelerator.synchronize()
            return self.wall()
        return self.used()


def _agree(times: Sequence[float]) -> bool:
    least, second = sorted(times)[:2]
    return second <= AGREED * least
