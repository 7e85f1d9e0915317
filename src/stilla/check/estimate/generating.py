"""How long texts take to be generated: the beginnings of a few are, and scaled."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

from stilla.check.estimate.clock import Stopwatch
from stilla.check.estimate.writing import BUDGET, FEW, TOKENS, Pace
from stilla.stages.generated import Writing

LOOKED_AT = 64
"""Texts of the data whose tokens are counted."""


def seconds_of_generating(writing: Writing, device: str) -> tuple[float, float]:
    """From texts as long as those that are shown to texts that are all cut at the limit. Leaves the model on the CPU."""
    section, stopwatch = writing.section, Stopwatch(device)

    def beginnings(texts: int, tokens: int) -> Callable[[], object]:
        shorter = replace(writing, section=section.model_copy(update={"max_new_tokens": tokens}))
        return lambda: shorter.rows(range(texts))

    writing.model.model.to(device)
    try:
        texts = min(FEW, section.count)
        stopwatch.once(beginnings(texts, 1))  # what a first call alone pays for
        taken = max(stopwatch.once(beginnings(texts, 1)), 1e-9)
        texts = min(section.count, section.batch_size, max(texts, int(texts * BUDGET / taken)))
        most = min(section.max_new_tokens, 1 + TOKENS)
        first, whole = stopwatch.least([beginnings(texts, 1), beginnings(texts, most)])
    finally:
        writing.model.model.cpu()
    pace = Pace(first / texts, max(0.0, whole - first) / max(1, most - 1) / texts)
    return section.count * pace(min(_length(writing), section.max_new_tokens)), section.count * pace(section.max_new_tokens)


def _length(writing: Writing) -> float:
    """Mean tokens of the texts that are shown; where none are, one."""
    some = list(writing.shown[:LOOKED_AT])
    return statistics.fmean(len(ids) for ids in writing.model.processor(some)["input_ids"]) if some else 1.0
