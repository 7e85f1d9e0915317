"""A recogniser that listens to what models speak: by what it hears, it is measured whether their words can be understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.audio.letters import Scribe
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.speech_recognition import recogniser


@cache
def listener(name: str, field: str) -> Callable[[Sequence[Wave]], list[str]]:
    """What a recogniser of frames (CTC) hears in waves, each by itself; loaded once in a process. `field`: of the recipe,
    that names it.

    Raises:
        CompatibilityError: it cannot be loaded, or is none of frames.
    """
    try:
        loaded = recogniser(ModelSource(model=name), labelled=True)
    except CompatibilityError as error:
        raise CompatibilityError(f"{field}: {error}") from error
    scribe: Scribe = loaded.processor
    model = loaded.model.eval()

    @torch.no_grad()
    def heard(waves: Sequence[Wave]) -> list[str]:
        inputs = scribe.ear.batch([scribe.ear.features(one) for one in waves])
        own = scribe.ear.said(inputs)
        assert own is not None  # `load` refuses recognisers whose frames cannot be counted
        best = model(**inputs)["logits"].argmax(-1).numpy()
        return [scribe.heard(row[:length]) for row, length in zip(best, own.sum(1).tolist(), strict=True)]

    return heard
