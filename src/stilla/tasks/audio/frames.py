"""Frames of a teacher: in a student's classes, and those of them at which the student is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Dense, Form, Samples, TopK


def renumbered(told: Form, order: Int[Tensor, "classes"]) -> Form:
    """What a teacher says, in a student's classes. `order`: for each of them the teacher's."""
    if isinstance(told, Dense):
        return Dense(told.logits[:, order])
    if not isinstance(told, TopK | Samples):
        raise CompatibilityError(f"frames come as all logits or a part of them, not as {type(told).__name__}")
    ids, places = order.argsort()[told.ids].sort(-1)
    if isinstance(told, TopK):
        there = None if told.there is None else told.there.gather(-1, places)
        return replace(told, ids=ids, log_probs=told.log_probs.gather(-1, places), there=there)
    return replace(told, ids=ids, counts=told.counts.gather(-1, places))


def best_of(told: Form) -> Int[Tensor, " rows"]:
    """The likeliest class of every frame, as far as it is told."""
    if isinstance(told, Dense):
        return told.logits.argmax(-1)
    assert isinstance(told, TopK | Samples)  # others were refused
    of = told.log_probs if isinstance(told, TopK) else told.counts
    return told.ids.gather(-1, of.argmax(-1, keepdim=True)).squeeze(-1)


def some_of(told: Form, kept: Bool[Tensor, " rows"]) -> Form:
    """Of some frames."""
    if isinstance(told, Dense):
        return Dense(told.logits[kept])
    if isinstance(told, TopK):
        there = None if told.there is None else told.there[kept]
        return replace(told, ids=told.ids[kept], log_probs=told.log_probs[kept], log_tail=told.log_tail[kept], there=there)
    assert isinstance(told, Samples)  # others were refused
    return Samples(told.ids[kept], told.counts[kept], told.entropy[kept])


def chosen(
    spoken: Bool[Tensor, " rows"], own: Bool[Tensor, "batch frames"], which: str
) -> Bool[Tensor, " rows"]:
    """Of all frames, utterance by utterance: those where a symbol is heard, with their neighbours (`around`) or without
    (`spoken`); all of an utterance in which none is, or where all are wanted."""
    if which == "all":
        return torch.ones_like(spoken)
    grid = torch.zeros_like(own)
    grid[own] = spoken
    near = grid
    if which == "around":
        near = grid.clone()
        near[:, 1:] |= grid[:, :-1]
        near[:, :-1] |= grid[:, 1:]
    near = near | ~grid.any(1, keepdim=True)
    return near[own]


def needed(ids: Sequence[int]) -> int:
    """Frames that symbols need: one each, and a blank between two that are the same."""
    return len(ids) + sum(one == other for one, other in pairwise(ids))
