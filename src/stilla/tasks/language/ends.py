"""Beginnings and ends of text that data already write: each stands there once, whoever put it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Ends:
    """What stands around a text besides itself.

    `begin`: the text of what the tokenizer puts before every text, '' if nothing. `end`: the end of text, '' if it has none.
    `ends`: whether the tokenizer puts it there itself.
    """

    begin: str
    end: str
    ends: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        before = next((start for start in range(len(whole)) if bare and whole[start : start + len(bare)] == bare), 0)
        behind = whole[before + len(bare) :]
        begin = "".join(tokenizer.convert_ids_to_tokens(whole[:before]))
        return cls(begin, str(tokenizer.eos_token or ""), tokenizer.eos_token_id in behind)

    def begun_once(self, text: str) -> str:
        """Without a beginning of its own, where the tokenizer puts one before it."""
        while self.begin and text.startswith(self.begin):
            text = text.removeprefix(self.begin)
        return text

    def unended(self, text: str) -> str:
        """Without an end of its own, and without spaces and line breaks behind that, which nobody would ever write."""
        while self.end and text.rstrip().endswith(self.end):
            text = text.rstrip().removesuffix(self.end)
        return text
