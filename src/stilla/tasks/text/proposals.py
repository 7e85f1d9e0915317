"""Words that a masked language model proposes for the places of others, and texts in which some of them stand.

TinyBERT's augmentation (Jiao et al. 2020, arXiv:1909.10351, sec. 3.4): words that fit what stands around, where
`perturbation.py` has similar ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stilla.tasks.text.sections import Contextual

SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string()), ("spans", pa.list_(pa.int32())),
                    ("words", pa.list_(pa.int32())), ("chances", pa.list_(pa.float32()))])
"""Of a text: from which character to which each word is that may give way, one after the other; then for each as many
proposals as for any other, by their numbers, and how likely each is drawn."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """`numbers`: of the texts. Of text n, words `starts[n]` to `starts[n + 1]` may give way, from character `spans[w, 0]` to
    `spans[w, 1]`; to `spellings[words[w, c]]` where a number between 0 and 1 is below `bounds[w, c]` and no earlier one."""

    numbers: Mapping[str, int]
    starts: Int[NDArray[np.int64], " texts+1"]
    spans: Int[NDArray[np.int32], "words 2"]
    words: Int[NDArray[np.int32], "words proposals"]
    bounds: Float[NDArray[np.float64], "words proposals"]
    spellings: Sequence[str]

    @classmethod
    def of(cls, table: pa.Table, spellings: Sequence[str]) -> Self:
        """Of rows in the form of `SCHEMA`."""
        flat = {name: table[name].combine_chunks().flatten().to_numpy() for name in ("spans", "words", "chances")}
        each = pc.list_value_length(table["spans"]).to_numpy().astype(np.int64) // 2
        top = len(flat["words"]) // max(1, int(each.sum()))
        bounds = flat["chances"].astype(np.float64).reshape(-1, max(1, top)).cumsum(1)
        return cls({text: number for number, text in enumerate(table["text"].to_pylist())},
                   np.concatenate([[0], each.cumsum()]), flat["spans"].reshape(-1, 2),
                   flat["words"].reshape(-1, max(1, top)), bounds / bounds[:, -1:], spellings)

    @classmethod
    def none_for(cls, texts: Iterable[str]) -> Self:
        """As if no word had been proposed for any of these."""
        numbers = {text: number for number, text in enumerate(texts)}
        return cls(numbers, np.zeros(len(numbers) + 1, np.int64), np.zeros((0, 2), np.int32), np.zeros((0, 1), np.int32),
                   np.zeros((0, 1)), ())

    def lacks(self, texts: Iterable[str]) -> bool:
        """Whether nothing was asked about some of these."""
        return not all(text in self.numbers for text in texts)

    def reworded(self, text: str, rate: float, draw: np.random.Generator) -> str:
        """The text with `rate` of the words that may give way replaced; the same text where none was drawn."""
        number = self.numbers[text]
        words = np.arange(self.starts[number], self.starts[number + 1])
        words = words[draw.random(len(words)) < rate]
        drawn = (draw.random(len(words))[:, None] >= self.bounds[words]).sum(1)
        parts, end = list[str](), 0
        for word, place in zip(words, np.minimum(drawn, self.words.shape[1] - 1)):
            begin, after = self.spans[word]
            parts += [text[end:begin], spelled_as(self.spellings[self.words[word, place]], text[begin:after])]
            end = after
        return "".join([*parts, text[end:]])


def spelled_as(word: str, there: str) -> str:
    """A word with the capitals of the one whose place it takes; with its own where that has none."""
    if len(there) > 1 and there.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if there[:1].isupper() else word


class Rewords(ABC):
    """A task whose training texts a masked language model may change."""

    @property
    @abstractmethod
    def contextual(self) -> Contextual | None:
        """How, if it does."""

    @abstractmethod
    def knowing(self, proposals: Proposals) -> Self:
        """The same task with what was proposed for its texts."""
