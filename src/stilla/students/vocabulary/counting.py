"""Which tokens texts use, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.runtime.narrate import progress
from stilla.students.vocabulary.pieces import Pieces, WordPiece, words_of

_AT_ONCE = 1000
MARGIN = 64
"""Tokens behind what a model reads that are counted too: a word that is cut there was made of what follows as well."""


@dataclass(frozen=True, eq=False)
class Counts:
    """`tokens`: (tokens,) how often each was used. `beside`: further ones that texts come past on their way. `texts`: how
    many texts there were, and some of them."""

    tokens: NDArray[np.int64]
    beside: frozenset[int]
    texts: int
    some: tuple[str, ...]


def counted(
    tokenizer: PreTrainedTokenizerBase, pieces: Pieces, texts: Iterable[str], length: int | None, *, kept: int = 256
) -> Counts:
    """Of texts, each as far as a model reads it: `length` tokens (None: all), and a few more. `kept`: how many texts are
    given back."""
    limit: Any = {} if length is None else {"truncation": True, "max_length": length + MARGIN}
    found = np.zeros(1 + max(tokenizer.get_vocab().values()), np.int64)
    beside: set[int] = set()
    number, some = 0, list[str]()
    for part in _shown(texts):
        encoded = tokenizer(part, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False,
                            **limit)["input_ids"]
        for text, ids in zip(part, encoded):
            np.add.at(found, ids, 1)
            if isinstance(pieces, WordPiece) and tokenizer.unk_token_id in ids:
                beside.update(*(pieces.until_unknown(word) for word in words_of(tokenizer, text)))
        some += part[: max(0, kept - len(some))]
        number += len(part)
    return Counts(found, frozenset(beside), number, tuple(some))


def _shown(texts: Iterable[str]) -> Iterator[list[str]]:
    """Some at a time, under a bar."""
    remaining = iter(texts)
    with progress("counting tokens", None) as advance:
        while part := list(islice(remaining, _AT_ONCE)):
            yield part
            advance(len(part))
