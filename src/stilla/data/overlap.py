"""Whether an example stands in other data too: the same text, eight words in a row, or the same picture."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

WORDS = 8
"""In a row, in two texts, are the same passage: what people who look for test data in training data take (Brown et al. 2020,
arXiv:2005.14165, take 8 to 13)."""

COMMON = 10
"""What stands in more of the measured examples is how such texts are worded ("Translate the following sentence into ..."),
and none of them."""

Trace = tuple[str | bytes, ...]
"""What an example is known by: its texts, or bytes that no other example has."""

_EACH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Chinese characters: written without spaces
_WORD = re.compile(f"[{_EACH}]|[^\\W{_EACH}]+")


class Met:
    """Examples that were met, by their traces."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        self._whole: set[Trace] = set()
        runs: Counter[int] = Counter()
        for trace in traces:
            self._whole.add(normal(trace))
            runs.update(set(_runs(trace)))
        self._runs = {run for run, examples in runs.items() if examples <= COMMON}

    def has(self, trace: Trace) -> bool:
        """Whether one of them is the same, or shares `WORDS` words in a row that are not common to many."""
        return normal(trace) in self._whole or any(run in self._runs for run in _runs(trace))


def words(text: str) -> list[str]:
    """What is compared of a text: its words and numbers, without case, punctuation and ways of writing (NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normal(trace: Trace) -> Trace:
    """The trace of everything that is the same text."""
    return tuple(" ".join(words(part)) or part.strip() if isinstance(part, str) else part for part in trace)


def _runs(trace: Trace) -> Iterator[int]:
    """Every `WORDS` words in a row of its texts, as a number."""
    for part in trace:
        found = words(part) if isinstance(part, str) else []
        for start in range(len(found) - WORDS + 1):
            yield hash(tuple(found[start : start + WORDS]))
