"""Students that stay below a limit: every number of layers, each with as many tokens as there is room for.

What a student is short of, layers or tokens, is not known before it has learnt; so the best candidates differ in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.students.layers import depths, outline
from stilla.students.vocabulary import size_of_a_token

READABLE = 0.97
"""Share of the texts' tokens that a student should still have, where others do."""
FINALISTS = 3
"""That are tried."""


@dataclass(frozen=True)
class Candidate:
    """A student that could be made.

    layers: as a recipe says them. tokens: of its vocabulary, None for all. parameters: about how many. kept: the share of the
    texts' tokens that it has.
    """

    layers: int | Mapping[str, Any]
    parameters: int
    tokens: int | None = None
    kept: float = 1.0

    @property
    def spec(self) -> dict[str, Any]:
        """As a recipe's `student` says it."""
        return {"layers": self.layers, **({} if self.tokens is None else {"vocabulary": {"tokens": self.tokens}})}

    @property
    def depth(self) -> int:
        """All its layers."""
        if isinstance(self.layers, int):
            return self.layers
        return sum(sum(one) if isinstance(one, list) else one for one in self.layers.values())


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a model's tokens: of `tokens` in all, `always` have to stay; `kept(n)`: the share of the texts' that
    the best n are."""

    tokens: int
    always: int
    kept: Callable[[int], float]


def candidates(teacher: nn.Module, most: int | None, vocabulary: Vocabulary | None) -> list[Candidate]:
    """Of each way to keep layers, the one with the most tokens that has at most so many parameters; the deepest first.

    Raises:
        CompatibilityError: the teacher has no layers that could be cut.
    """
    assert isinstance(teacher, PreTrainedModel) or vocabulary is None
    each = size_of_a_token(teacher) if vocabulary is not None and isinstance(teacher, PreTrainedModel) else 0
    found = []
    for layers in depths(teacher):
        size = sum(one.numel() for one in outline(teacher, layers).parameters())
        if most is None or size <= most:
            found.append(Candidate(layers, size))
        elif vocabulary is not None and each:
            tokens = vocabulary.tokens - -(-(size - most) // each)
            if tokens >= vocabulary.always:
                left = size - (vocabulary.tokens - tokens) * each
                found.append(Candidate(layers, left, tokens, vocabulary.kept(tokens)))
    return sorted(found, key=lambda one: (one.depth, one.parameters), reverse=True)


def finalists(found: Sequence[Candidate], most: int = FINALISTS) -> list[Candidate]:
    """The deepest that can read nearly all of the texts, the next deeper one, and the next shallower ones.

    Raises:
        CompatibilityError: there is no candidate.
    """
    if not found:
        raise CompatibilityError("student: no number of layers and tokens stays below the limit; a single layer with the "
                                 "tokens that every text needs is larger or slower. Allow more, or give a student of other "
                                 "sizes (`config`)")
    readable = next((place for place, one in enumerate(found) if one.kept >= READABLE), 0)
    if all(one.tokens is None for one in found):  # nothing speaks for fewer layers
        return list(found[:1]) if all(isinstance(one.layers, int) for one in found) else list(found[:most])
    first = max(0, readable - 1)
    return list(found[first : first + most])
