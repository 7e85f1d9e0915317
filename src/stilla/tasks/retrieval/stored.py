"""A teacher that is not there: what it said of texts lies in a file, and nothing else of it is known.

It is a model like others to all that asks it: one that reads a text as a single number, the row of its vector. What only a
model has, layers and a tokenizer, it refuses by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stilla.errors import CompatibilityError, DataError, all_at_once, all_of, counted, quoted
from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval import vectors
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.model import EmbeddingOutput
from stilla.tasks.text.tokens import Tokens

_NAMED = 5
_ANY_LENGTH = 2**31


class Table(nn.Module):
    """A vector of every text of a file."""

    def __init__(self, rows: Float[Tensor, "texts width"]) -> None:
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(rows, freeze=True)

    @property
    def width(self) -> int:
        return int(self.rows.embedding_dim)

    def forward(self, input_ids: Int[Tensor, "texts 1"], attention_mask: Tensor | None = None) -> EmbeddingOutput:
        return EmbeddingOutput(self.rows(input_ids[:, 0]).float())


@dataclass(frozen=True, eq=False)
class Known:
    """The processor of a `Table`. `source`: the file. `numbers`: the row of each text, or key."""

    source: str
    numbers: Mapping[str, int] = field(repr=False)
    model_max_length: int = _ANY_LENGTH

    def tokens(self, texts: Sequence[str], kinds: Sequence[Kind | None], length: int) -> tuple[Tokens, int]:
        """Raises:
            DataError: the file has no vectors of some of them.
        """
        if problem := self.lacking(texts):
            raise DataError(problem)
        ids = np.array([self.numbers[text] for text in texts], np.int32)
        return Tokens(ids, np.arange(len(ids) + 1, dtype=np.int64), None, {"input_ids": 0, "attention_mask": 0}, False), 0

    def lacking(self, texts: Iterable[str | None], where: str = "") -> str | None:
        """Which texts it has no vectors of, in words; None where there are none. An empty text needs none."""
        asked = dict.fromkeys(text for text in texts if text)
        missing = [text for text in asked if text not in self.numbers]
        if not missing:
            return None
        shown = all_of([*(quoted(text) for text in missing[:_NAMED]), *(["others"] if len(missing) > _NAMED else [])])
        return (f"{where}{self.source} has no vectors of {len(missing):,} of {counted(len(asked), 'different text')}: "
                f"{shown}. It "
                f"has {len(self.numbers):,}; a text has to stand there as it stands in the data, to the letter (of a search, "
                "title and text with a space between). Add them, or name columns of keys: teacher.data: {text: id}")

    def numbering(self, other: Any) -> None:
        """Its numbers are of texts, not of tokens."""

    def same(self, other: Any) -> bool:
        return isinstance(other, Known) and self.to_dict() == other.to_dict()

    @property
    def tokenizer(self) -> NoReturn:
        raise CompatibilityError(f"{self.source} is a file of vectors, whose model nobody has here, and so has no "
                                 f"tokenizer. A "
                                 "student reads by its own")

    def save_pretrained(self, folder: Any) -> None:
        raise CompatibilityError(f"{self.source} is a file of vectors; there is nothing to save")

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {"texts": self._digest}

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for text in self.numbers:
            digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def load(source: ModelSource) -> Loaded:
    """A file of vectors as a model.

    Raises:
        DataError: the file does not say it.
    """
    keys, rows = vectors.read(source.model)
    numbers = {key: row for row, key in enumerate(keys)}
    return Loaded(Table(torch.from_numpy(rows)), Known(source.model, numbers), source.model)


def refuse_lacking(known: Known, asked: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Raises:
        DataError: texts of some splits, by their names, that have no vector there."""
    problems = [known.lacking(texts, f"teacher.model: of data.{name}, ") for name, texts in asked]
    if found := [one for one in problems if one is not None]:
        raise all_at_once(found, DataError)


def refuse_cut(source: str) -> NoReturn:
    """A student that begins with something of its teacher's."""
    raise CompatibilityError(f"student: is cut from its teacher, or made like it, and {source} is a file of vectors "
                             f"without a "
                             "model. Give a model that it starts from: student: {model: ...}")
