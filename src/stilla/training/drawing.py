"""Chance of one's own: generators that a piece of code draws from, seeded within and as before outside.

What a person's collator or dataset draws (masked words, pictures turned at random) then depends on what it draws for, not
on what was drawn before: a resumed training draws the same, and an evaluation between two steps moves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(numbers: Sequence[int]) -> Iterator[None]:
    """Python's, NumPy's and torch's generators of the processor, seeded by these numbers (from 0)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    with as_before(torch.device("cpu")):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
        yield


@contextmanager
def as_before(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within, the generators of the processor and of the device are then what they were before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = None if device.type == "cpu" else torch.get_device_module(device)
    there = None if accelerator is None else accelerator.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        if accelerator is not None:
            accelerator.set_rng_state(there)
