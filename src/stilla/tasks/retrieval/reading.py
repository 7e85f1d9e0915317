"""How an embedding model reads texts: a tokenizer, the prompt before a text of its kind, the longest text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from stilla.models.fingerprint import of_processor
from stilla.tasks.retrieval.layout import Kind, write_reading
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering, numbering

_NAMES: Mapping[str, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""By kind, what its prompt is called: `encode_query` and `encode_document` of sentence-transformers look for these."""

_TO_THE_END = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Reader:
    """A model's processor. `prompts`, `default`, `lower`: as in `Layout`. `whole`: reads a text to its end, however long."""

    tokenizer: PreTrainedTokenizerBase
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    lower: bool = False
    whole: bool = False

    @property
    def model_max_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    def prompt(self, kind: Kind | None) -> str:
        """What stands before a text of this kind."""
        named = next((name for name in _NAMES.get(kind or "", ()) if name in self.prompts), self.default)
        return self.prompts.get(named or "", "")

    def texts(self, texts: Sequence[str], kinds: Sequence[Kind | None]) -> list[str]:
        """As the tokenizer gets them."""
        before = {kind: self.prompt(kind) for kind in set(kinds)}
        whole = [before[kind] + text for text, kind in zip(texts, kinds, strict=True)]
        return [text.lower() for text in whole] if self.lower else whole

    def tokens(self, texts: Sequence[str], kinds: Sequence[Kind | None], length: int) -> tuple[_tokens.Tokens, int]:
        """What its model reads of each text, and how many were cut to `length`."""
        return _tokens.tokenise(self.tokenizer, [self.texts(texts, kinds)], _TO_THE_END if self.whole else length)

    def numbering(self, other: Any) -> Numbering | None:
        """How another numbers the tokens of this one; None where it does not read the very same pieces."""
        return numbering(self.tokenizer, other.tokenizer) if self._reads_alike(other) else None

    def same(self, other: Any) -> bool:
        """Whether both make the same inputs of every text."""
        return self._reads_alike(other) and _tokens.same(self.tokenizer, other.tokenizer)

    def _reads_alike(self, other: Any) -> bool:
        """Whether both put the same before texts."""
        kinds: tuple[Kind | None, ...] = (None, "query", "document")
        return isinstance(other, Reader) and self.lower == other.lower and all(
            self.prompt(kind) == other.prompt(kind) for kind in kinds)

    def with_prompts(self, prompts: Mapping[str, str]) -> Reader:
        """Some of them in place of the folder's; `default` is that of texts of no kind."""
        default = "default" if "default" in prompts else self.default
        return replace(self, prompts={**self.prompts, **prompts}, default=default)

    def save_pretrained(self, folder: Any) -> None:
        self.tokenizer.save_pretrained(folder)
        length = self.model_max_length
        write_reading(Path(folder), self.prompts, self.default, length if length < 2**20 else None, lower=self.lower)

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {"tokenizer": of_processor(self.tokenizer), "prompts": dict(self.prompts), "default": self.default,
                "lower": self.lower, "longest": self.model_max_length, **({"whole": True} if self.whole else {})}
