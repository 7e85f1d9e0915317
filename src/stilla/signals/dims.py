"""The sizes of what a model will say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Dims:
    """The sizes that an objective may need before training: what a model's signals will look like.

    `classes`: width of a row of logits; 0 where there are none. `widths`: per stack the width of each hidden state ([0]
    enters layer 0). `embedding`: of the vectors in `Signals.embeddings`; 0 where there are none. `positions`: per stack how
    many of them each hidden state has of an example that both models are asked about; empty where that is not known. `bins`:
    where those lie over which edges of boxes are distributed (`Edges`), from the innermost on; empty where none are.
    """

    classes: int
    widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    embedding: int = 0
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bins: tuple[float, ...] = ()

    def with_states(self, sizes: Mapping[str, tuple[tuple[int, int], ...]]) -> Dims:
        """The same with the states of such stacks. sizes: positions and width of each state."""
        return replace(self, positions={name: tuple(one for one, _ in states) for name, states in sizes.items()},
                       widths={name: tuple(one for _, one in states) for name, states in sizes.items()})
