"""What may be spent, and what is: before a request is sent, the most that it can cost is set aside."""

from __future__ import annotations

import asyncio

from stilla.errors import StillaError


class CeilingError(StillaError):
    """The next request could pass the ceiling."""


class Purse:
    """`spent` and what is set aside are together never above the ceiling."""

    def __init__(self, ceiling: float | None, spent: float = 0.0) -> None:
        self.ceiling = ceiling
        self.spent = spent
        self.aside = 0.0
        self._changed = asyncio.Condition()

    async def reserve(self, most: float) -> None:
        """Set so much aside, as soon as requests that are under way leave room for it.

        Raises:
            CeilingError: they do not, whatever they cost.
        """
        async with self._changed:
            while not self._has_room(most):
                if not self.aside:
                    raise CeilingError(
                        f"teacher.api.ceiling: {self.ceiling:g} is the limit, {self.spent:.4f} are spent, and the next "
                        f"request may cost up to {most:.4f}. All answers so far are stored; with a higher ceiling the same "
                        "run goes on where it stopped. Or ask less: fewer examples (data.limit), answers or max_tokens")
                await self._changed.wait()
            self.aside += most

    async def settle(self, most: float, cost: float) -> None:
        """What was set aside for a request is free again, what it cost is spent."""
        async with self._changed:
            self.aside = max(0.0, self.aside - most)
            if self.aside < 1e-12:
                self.aside = 0.0  # sums of floats
            self.spent += cost
            self._changed.notify_all()

    def _has_room(self, most: float) -> bool:
        return self.ceiling is None or self.spent + self.aside + most <= self.ceiling + 1e-12
