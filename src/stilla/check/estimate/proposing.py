"""How long words take to be proposed: for a few texts they are, and scaled."""

from __future__ import annotations

from stilla.check.estimate.clock import Stopwatch
from stilla.check.proposing import ToPropose

FEW = 8
"""Texts that are asked about."""


def seconds_of_proposing(asked: ToPropose, device: str) -> tuple[float, float]:
    """For all of them; leaves the model on the CPU."""
    some = asked.texts[:: max(1, len(asked.texts) // FEW)][:FEW]
    stopwatch = Stopwatch(device)
    asked.by.model.model.to(device)
    try:
        stopwatch.once(lambda: asked.by.rows(some, [0]))  # what a first call alone pays for
        (taken,) = stopwatch.least([lambda: asked.by.rows(some, range(len(some)))])
    finally:
        asked.by.model.model.cpu()
    seconds = taken / len(some) * len(asked.texts)
    return seconds, seconds
