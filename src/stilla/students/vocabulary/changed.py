"""How much of texts a smaller vocabulary writes otherwise: the price of tokens that are gone, in words of other texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from stilla.errors import counted

_AT_ONCE = 1000
_CHARACTERS = 8
"""Per token that a model reads: languages have 2 to 6."""


@dataclass(frozen=True)
class Changed:
    """Of so many `words` (what stands between spaces) in so many `texts`, how many are made of other tokens than before, and
    how many texts have such a word. `unknown`: how many words have become unknown (which no text should have)."""

    words: int = 0
    changed: int = 0
    texts: int = 0
    touched: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        share, touched = (part / max(1, whole) for part, whole in ((self.changed, self.words), (self.touched, self.texts)))
        unknown = f"; {self.unknown:,} words have become unknown" if self.unknown else "; none has become unknown"
        return (f"{share:.1%} of {self.words:,} words are made of other tokens than before, in {touched:.0%} of "
                f"{counted(self.texts, 'text')}{unknown}")


def changed_words(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, texts: Iterable[str], length: int | None
) -> Changed:
    """Of texts, each about as far as a model reads it. `before`, `after`: two tokenizers of the same rules."""
    words = changed = number = touched = unknown = 0
    remaining = (text if length is None else text[: _CHARACTERS * length] for text in texts)
    while part := list(islice(remaining, _AT_ONCE)):
        for old, new in zip(*(_words(tokenizer, part) for tokenizer in (before, after))):
            other = [place for place in old if old[place] != new.get(place)]
            words += len(old)
            changed += len(other)
            touched += bool(other)
            unknown += sum(after.unk_token in new.get(place, ()) and before.unk_token not in old[place] for place in other)
        number += len(part)
    return Changed(words, changed, number, touched, unknown)


def _words(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterator[dict[int, tuple[str, ...]]]:
    """The tokens of every word of every text, by the word's place among those between spaces."""
    encoded: Any = tokenizer(texts, truncation=False, padding=False, add_special_tokens=False, return_offsets_mapping=True,
                             return_attention_mask=False, return_token_type_ids=False, verbose=False)
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        place = np.cumsum([one.isspace() for one in text])
        # by its last character: a token may begin with the space before its word
        placed = [(int(place[end - 1]), token) for token, (start, end) in zip(tokenizer.convert_ids_to_tokens(ids), offsets)
                  if end > start]
        yield {number: tuple(token for _, token in group) for number, group in groupby(placed, key=lambda one: one[0])}
