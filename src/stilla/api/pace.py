"""How fast a server may be asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass
class Pace:
    """Requests at even distances, so that no minute has more of them, or of tokens, than are allowed.

    `rest`: what a server that is asked too fast says (`Retry-After`) holds for all requests.
    """

    requests: int | None = None
    tokens: int | None = None
    _free: float = 0.0
    _resting: float = 0.0

    def place(self, now: float, tokens: int) -> float:
        """The time at which a request of so many tokens may begin; the next one is put behind it."""
        begins = max(now, self._free)
        gaps = [60 / self.requests if self.requests else 0.0, 60 * tokens / self.tokens if self.tokens else 0.0]
        self._free = begins + max(gaps)
        return begins

    def rest(self, until: float) -> None:
        """No request begins before."""
        self._resting = max(self._resting, until)

    async def turn(self, tokens: int) -> None:
        """Wait until a request of so many tokens may begin."""
        clock = asyncio.get_running_loop().time
        begins = self.place(clock(), tokens)
        while (wait := max(begins, self._resting) - clock()) > 0:
            await asyncio.sleep(wait)
