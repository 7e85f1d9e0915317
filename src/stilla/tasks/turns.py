"""Which of its changed forms each example of a split takes in a pass, where examples are changed at random.

What is drawn for an example follows from seed, pass and key, and from which of several candidates of that pass was chosen for
it: the first, as long as nobody chooses.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray


class Turns:
    """Passes and choices; shared with the loader's processes, which begin after a choice and see the pass change."""

    def __init__(self, views: int | None = None, untouched: int = 0) -> None:
        """`views`: how many changed forms there are of each example, which passes take in turn; None: new ones in every pass.
        `untouched`: the first so many passes, in which examples stay as they are."""
        self.views, self.untouched = views, untouched
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._chosen: torch.Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    @property
    def cycle(self) -> int | None:
        """How many passes there are before the same forms come again; None: they never do."""
        return None if self.views is None else self.untouched + self.views

    @property
    def changes(self) -> bool:
        """Whether examples are changed in this pass."""
        return self.epoch >= self.untouched

    def choose(self, keys: Int[NDArray[np.int64], " some"], candidates: Int[NDArray[np.int64], " some"]) -> None:
        """From now on these examples take these candidates of every pass; others the first."""
        chosen = torch.zeros(int(keys.max()) + 1, dtype=torch.int64)
        chosen[torch.from_numpy(keys)] = torch.from_numpy(candidates)
        self._chosen = chosen.share_memory_()

    def of(self, key: int) -> tuple[int, int]:
        """By what an example is drawn in this pass: a view, and which candidate of it. Of views that are there once and for
        all, a candidate is the view so many further on, itself the first of its own."""
        view, candidate = self.epoch, 0
        if self._chosen is not None and key < len(self._chosen):
            candidate = int(self._chosen[key])
        if self.views is None:
            return view, candidate
        if view < self.untouched:
            return view, 0
        return self.untouched + (view - self.untouched + candidate) % self.views, 0
