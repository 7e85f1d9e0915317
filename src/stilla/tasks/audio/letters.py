"""Symbols of speech recognisers: transcripts into them and back, and two models' matched by what they stand for."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from transformers import AutoTokenizer, ParakeetTokenizer, PreTrainedTokenizerBase, Wav2Vec2CTCTokenizer

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.audio.hearing import Ear
from stilla.tasks.shared import loading
from stilla.tasks.shared.transcripts import is_punctuation

_FILES = ("vocab.json", "tokenizer.json", "tokenizer_config.json")

Case = Literal["as it is", "upper", "lower"]


@dataclass(frozen=True)
class Scribe:
    """What turns sounds into inputs of a model, and its symbols into words."""

    ear: Ear
    symbols: PreTrainedTokenizerBase = field(repr=False)

    @property
    def blank(self) -> int:
        """The class of no symbol: the padding's."""
        blank: int = self.symbols.pad_token_id
        return blank

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of every class by number; what has a role by its role, so that other names of it are the same."""
        roles = {self.symbols.pad_token: "<blank>", self.symbols.unk_token: "<unknown>",
                 self.symbols.bos_token: "<begin>", self.symbols.eos_token: "<end>"}
        if isinstance(self.symbols, Wav2Vec2CTCTokenizer):
            roles[self.symbols.word_delimiter_token] = "<space>"
        known = self.symbols.convert_ids_to_tokens(list(range(len(self.symbols))))
        return tuple(roles.get(one, one) for one in known)

    def written(self, ids: Sequence[int]) -> str:
        """Symbols as text; repeats are repeats."""
        if isinstance(self.symbols, Wav2Vec2CTCTokenizer):
            return str(self.symbols.decode(list(ids), group_tokens=False, skip_special_tokens=True)).strip()
        grouped = {"group_tokens": False} if isinstance(self.symbols, ParakeetTokenizer) else {}
        return str(self.symbols.decode(list(ids), skip_special_tokens=True, **grouped)).strip()

    def heard(self, best: NDArray[np.int64]) -> str:
        """The best class of every frame as text: repeats are one, blanks are none."""
        first = np.append(True, best[1:] != best[:-1]) if len(best) else np.zeros(0, bool)
        return self.written(best[first & (best != self.blank)].tolist())

    def case_of(self, texts: Sequence[str]) -> Case:
        """As what its symbols know most of the texts: as it is, in capitals, or in small letters."""
        some = list(texts[:500])
        cases: tuple[Case, ...] = ("as it is", "upper", "lower")
        return min(cases, key=lambda case: sum(self._unknown(self.ids(one, case)) for one in some))

    def ids(self, text: str, case: Case) -> list[int]:
        """Its symbols. Punctuation that there is no symbol for is left out, as it is of what is measured; whatever else there
        is none for is unknown."""
        text = text.upper() if case == "upper" else text.lower() if case == "lower" else text
        found = self._symbols(text)
        if not self.unknown(found):
            return found
        composed = unicodedata.normalize("NFC", text)
        without = self.left_out(composed)
        return self._symbols("".join(self._instead(one) if one in without else one for one in composed))

    def left_out(self, text: str) -> set[str]:
        """Punctuation within it that there is no symbol for."""
        return {one for one in set(text) if not one.isspace() and is_punctuation(one) and self.unknown(self._symbols(one))}

    def _instead(self, sign: str) -> str:
        """Of don’t: don't, where there is a symbol for that."""
        return "'" if sign == "’" and not self.unknown(self._symbols("'")) else " "

    def _symbols(self, text: str) -> list[int]:
        # as decoding gives it back: single spaces, none at the ends
        found: list[int] = self.symbols(" ".join(text.split()), add_special_tokens=False).input_ids
        return found

    def unknown(self, ids: Sequence[int]) -> bool:
        """Whether they hold what there is no symbol for."""
        return self._unknown(ids) > 0

    def _unknown(self, ids: Sequence[int]) -> int:
        unknown = self.symbols.unk_token_id
        return 0 if unknown is None else list(ids).count(unknown)

    def order_of(self, other: Scribe) -> Int[NDArray[np.int64], "classes"] | None:
        """For each of these classes, the other's that stands for the same; None where one has what the other has not."""
        ours, theirs = self.names, other.names
        if len(set(ours)) < len(ours) or sorted(ours) != sorted(theirs):
            return None
        where = {name: place for place, name in enumerate(theirs)}
        return np.array([where[name] for name in ours], np.int64)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        self.ear.save_pretrained(folder, **options)
        self.symbols.save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What decides which values a model hears, and what its classes are."""
        return {**self.ear.to_dict(), "symbols": json.dumps(self.names)}


def symbols_for(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of a recogniser.

    Raises:
        CompatibilityError: there is none, or it knows no blank.
    """
    place, options = loading.where_processor(source)
    folder = Path(place).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in _FILES):
        raise CompatibilityError(f"{place!r} holds no tokenizer, which says what a recogniser's classes are; copy its "
                                 "vocab.json and tokenizer_config.json there (a model that was only pre-trained has none: "
                                 "write one, with Wav2Vec2CTCTokenizer), or name its place: processor.")
    with loading.explained(place, "processor"):
        symbols = AutoTokenizer.from_pretrained(place, **options)
    if symbols.pad_token_id is None:
        raise CompatibilityError(f"processor: the tokenizer of {place!r} has no pad token, which stands for CTC's blank.")
    found: PreTrainedTokenizerBase = symbols
    return found
