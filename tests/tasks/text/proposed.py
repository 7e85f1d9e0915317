"""What a masked language model might have proposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from stilla.tasks.text.proposals import SCHEMA, Proposals
from stilla.tasks.text.words import Words


def proposals(texts: Sequence[str], spellings: Sequence[str]) -> Proposals:
    """Three words in the place of each but numbers, drawn with the chances 0.5, 0.3 and 0.2."""
    rows: list[dict[str, Any]] = []
    for key, text in enumerate(texts):
        words = Words.split(text, "words")
        spans = [span for span in zip(words.starts, words.ends, strict=True) if text[slice(*span)].isalpha()]
        rows.append({"key": key, "text": text, "spans": [end for span in spans for end in span],
                     "words": [(key + place) % len(spellings) for _ in spans for place in range(3)],
                     "chances": [0.5, 0.3, 0.2] * len(spans)})
    return Proposals.of(pa.Table.from_pylist(rows, SCHEMA), spellings)
