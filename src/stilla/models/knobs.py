"""Numbers of a config that say how wide a model is, and the units that they count, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from stilla.models.configs import ConfigPath, Shapes
from stilla.models.members import Units
from stilla.models.probe import Probe

Kind = Literal["ffn", "heads", "hidden"]
Number = int | float | tuple[int, ...]
Changes = dict[ConfigPath, Any]


@dataclass(frozen=True)
class Knob:
    """Numbers of a config that say how wide something is, and the units that they count.

    now: each number's path and value. A field that is None, and means a multiple of another, has the value that it means.
    pins: what has to be said too, so that nothing else changes with them (how large a head is).
    bound: of the hidden state, the numbers of heads that have to fall with it, where a head's size follows from both.
    """

    kind: Kind
    now: Mapping[ConfigPath, Number]
    units: tuple[Units, ...]
    pins: Changes = field(default_factory=dict)
    bound: Mapping[ConfigPath, Number] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many units there are in one group of them."""
        return self.units[0].count

    @property
    def is_ratio(self) -> bool:
        """Whether the number is a multiple of the hidden state's width."""
        return self.kind == "ffn" and any(value != self.size for value in self.now.values())


@dataclass(frozen=True)
class Widths:
    """What can be cut. probe: whose units the knobs have; shapes: of its model.

    heads: by section of the config, ways to have fewer of them. reasons: by kind, why there is nothing to cut.
    """

    probe: Probe
    shapes: Shapes
    ffn: tuple[Knob, ...] = ()
    heads: tuple[tuple[Knob, ...], ...] = ()
    hidden: tuple[Knob, ...] = ()
    reasons: Mapping[Kind, str] = field(default_factory=dict)

    def units(self, knobs: Iterable[Knob]) -> list[Units]:
        """What these knobs count, of the whole model."""
        return [units for knob in knobs for one in knob.units for units in self.probe.layers.in_model(one)]


def scaled(value: Number, share: float) -> Number:
    """A ratio times a share; whole numbers stay whole where they can: some classes take no others."""
    if isinstance(value, tuple):
        return tuple(max(1, round(share * one)) for one in value)
    return round(share * value) if isinstance(value, int) and share * value == round(share * value) else share * value


def numbers_in(values: Iterable[Number]) -> Iterator[int]:
    """Whole numbers, also those in lists."""
    for value in values:
        yield from (value if isinstance(value, tuple) else (int(value),))


def doubled(value: object) -> Number | None:
    """Twice a number that may be cut; None of what cannot."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > (1 if isinstance(value, int) else 0):
        return 2 * value
    if isinstance(value, list | tuple) and all(type(entry) is int for entry in value) and prod(value, start=len(value)) > 0:
        return tuple(2 * entry for entry in value)
    return None
