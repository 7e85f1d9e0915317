"""Transcripts with times, as Whisper writes them: `<|0.00|> what is said<|2.40|>`, segment after segment."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessorList, WhisperTimeStampLogitsProcessor

TIME = re.compile(r"(<\|\d+\.\d\d\|>)")
_LATEST_FIRST = 50
"""Steps of 20 ms, after which a transcript's first time does not lie: OpenAI's."""
_DRAW = 0x7173  # apart from other draws by the same keys


def plain(text: str) -> str:
    """A transcript without its times; one that has none as it is."""
    return TIME.sub("", text).strip() if TIME.search(text) else text


def drawn(keys: Sequence[int], share: float) -> Bool[NDArray[np.bool_], " examples"]:
    """Which examples are learnt with times: the same in every epoch and of every seed, so that what a teacher said of them
    can be stored."""
    return np.array([np.random.default_rng((_DRAW, key)).random() < share for key in keys], np.bool_)


def rules(end: int, untimed: int, begins: int) -> LogitsProcessorList:
    """Of what may follow what where times are written: they come in pairs, never go back, and begin and end a text.

    `untimed`: the token before that of the first time. `begins`: how many tokens are read before the first that is written.
    """
    said = GenerationConfig(eos_token_id=end, no_timestamps_token_id=untimed, max_initial_timestamp_index=_LATEST_FIRST)
    return LogitsProcessorList([WhisperTimeStampLogitsProcessor(said, begin_index=begins)])
