"""What a tokenizer makes texts of, as `tokenizer.json` has it: WordPiece, BPE and Unigram, and what of each texts need.

Each kind breaks in its own way when tokens are taken from it. WordPiece makes one unknown token of a word of which one piece
is missing; BPE reaches a token by merges, each of whose products has to be there; Unigram weighs pieces against each other,
unknown characters by the score of the least likely piece. A kind says what has to stay with a token for texts to come to it
as before, and what for every other text to stay readable.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from stilla.students.vocabulary.refusal import refusal

SPACE = "▁"
"""What SentencePiece writes for a space; decoders look for it before they look for bytes."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""What a character is made of that is no token itself, where a tokenizer falls back to bytes."""


_BEFORE = ("a", "1", "é", "я", "ا", "中", "-", "'")
"""Characters of several kinds, behind which a piece may stand within a word."""

Words = Callable[[str], Sequence[str]]


class Pieces(ABC):
    """A tokenizer's model. `numbers`: of its tokens; added ones that are none of it are not among them. `words`: what of a
    text its model gets, one by one."""

    kind: ClassVar[str]

    def __init__(self, model: Mapping[str, Any], words: Words) -> None:
        self.model = model
        self.words = words
        self.numbers: Mapping[str, int] = self._numbers()
        self.names = {number: token for token, number in self.numbers.items()}

    @abstractmethod
    def needed(self) -> set[int]:
        """Tokens without which some text could not be read that can be read now: characters, or bytes that make them."""

    def within(self, number: int) -> set[int]:
        """The token, and all that a text is before it comes to it."""
        return {number}

    def reached(self, number: int) -> bool:
        """Whether some text becomes this token. False: it stands for nothing that is written (`[unused7]`)."""
        return True

    @abstractmethod
    def cut(self, order: Mapping[int, int]) -> dict[str, Any]:
        """The model of the tokens in `order` alone (old number -> new number)."""

    def _numbers(self) -> Mapping[str, int]:
        numbers: Mapping[str, int] = self.model["vocab"]
        return numbers

    def _fallen_back_to(self) -> set[int] | None:
        """The bytes of which unknown characters are made, with what decoders look for; None where there are none."""
        if not self.model.get("byte_fallback") or not all(one in self.numbers for one in BYTES):
            return None
        return {self.numbers[one] for one in (*BYTES, SPACE) if one in self.numbers}

    def _kept_vocabulary(self, order: Mapping[int, int]) -> dict[str, int]:
        kept = {token: order[number] for token, number in self.numbers.items() if number in order}
        return dict(sorted(kept.items(), key=lambda item: item[1]))


class WordPiece(Pieces):
    """The longest piece that a word begins with, then the longest that the rest begins with, and so on (`##`)."""

    kind = "WordPiece"

    @cached_property
    def prefix(self) -> str:
        return str(self.model.get("continuing_subword_prefix") or "")

    def needed(self) -> set[int]:
        """Single characters, at the beginning and inside; a piece of which one stands nowhere else."""
        single = {self._character(*one) for one in map(self._parts, self.numbers) if len(one[0]) == 1}
        return {number for token, number in self.numbers.items()
                if (len(self._parts(token)[0]) == 1 or not self._made_of(token) <= single) and self.reached(number)}

    def reached(self, number: int) -> bool:
        """Not what words are split at: `##!` and `##中` in BERT, which stand inside no word."""
        written, inside = self._parts(self.names[number])
        tried = [before + written for before in (*_BEFORE, written[:1])] if inside else [written]
        return any(list(self.words(one)) == [one] for one in tried)

    def until_unknown(self, word: str) -> set[int]:
        """The pieces that a word is made of before the one that is missing; none where it can be read, or is too long.

        Without them another piece would be tried, and the word might become known: texts would be read otherwise.
        """
        found: set[int] = set()
        if len(word) > self.model.get("max_input_chars_per_word", 100):
            return found
        start = 0
        while start < len(word):
            before = self.prefix if start else ""
            end = next((end for end in range(len(word), start, -1) if before + word[start:end] in self.numbers), None)
            if end is None:
                return found
            found.add(self.numbers[before + word[start:end]])
            start = end
        return set()

    def cut(self, order: Mapping[int, int]) -> dict[str, Any]:
        return {**self.model, "vocab": self._kept_vocabulary(order)}

    def _parts(self, token: str) -> tuple[str, bool]:
        """What is written, and whether it stands inside a word."""
        inside = bool(self.prefix) and token.startswith(self.prefix) and token != self.prefix
        return (token.removeprefix(self.prefix) if inside else token), inside

    def _made_of(self, token: str) -> set[str]:
        written, inside = self._parts(token)
        return {self._character(one, inside or place > 0) for place, one in enumerate(written)}

    def _character(self, written: str, inside: bool) -> str:
        return (self.prefix if inside else "") + written


class BPE(Pieces):
    """Characters (or bytes), of which pairs are merged, the earliest in the list first, until none is left."""

    kind = "BPE"

    def __init__(self, model: Mapping[str, Any], words: Words) -> None:
        super().__init__(model, words)
        self.merges = [tuple(one.split(" ", 1)) if isinstance(one, str) else tuple(one) for one in model["merges"]]
        self.ranks = {pair: rank for rank, pair in reversed(list(enumerate(self.merges)))}
        self._reached: dict[int, tuple[set[int], bool]] = {}

    @cached_property
    def prefix(self) -> str:
        return str(self.model.get("continuing_subword_prefix") or "")

    @cached_property
    def suffix(self) -> str:
        return str(self.model.get("end_of_word_suffix") or "")

    def needed(self) -> set[int]:
        """Bytes where it falls back to them; else what merges begin with: characters, or bytes that are written as such."""
        fallback = self._fallen_back_to()
        if fallback is not None:
            return fallback
        return {number for token, number in self.numbers.items() if len(self._symbols(token)) == 1}

    def within(self, number: int) -> set[int]:
        """The token and the products of the merges that lead to it.

        A token that a word ends as was made within itself, by the merges that make it of its characters alone. With those of
        all tokens that are kept, and with any other merges of the list, each step on the way of a text that ends as kept
        tokens is the same: the earliest pair that can be merged is still there, and nothing earlier has come.
        """
        return self._made(number)[0]

    def reached(self, number: int) -> bool:
        return self._made(number)[1]

    def cut(self, order: Mapping[int, int]) -> dict[str, Any]:
        vocabulary = self._kept_vocabulary(order)
        merges = [list(pair) for pair in self.merges if {*pair, self._product(*pair)} <= vocabulary.keys()]
        return {**self.model, "vocab": vocabulary, "merges": merges}

    def _made(self, number: int) -> tuple[set[int], bool]:
        if number not in self._reached:
            token = self.names[number]
            symbols = self._symbols(token)
            seen = set(symbols)
            while len(symbols) > 1:
                ranked = [(self.ranks[pair], place) for place, pair in enumerate(pairwise(symbols))
                          if pair in self.ranks]
                if not ranked:
                    break
                _, place = min(ranked)
                symbols[place : place + 2] = [self._product(*symbols[place : place + 2])]
                seen.add(symbols[place])
            whole = symbols == [token] or (bool(self.model.get("ignore_merges")) and token not in BYTES)
            self._reached[number] = {self.numbers[one] for one in seen if one in self.numbers} | {number}, whole
        return self._reached[number]

    def _symbols(self, token: str) -> list[str]:
        """What merges make the token of."""
        inside = bool(self.prefix) and token.startswith(self.prefix) and token != self.prefix
        ends = bool(self.suffix) and token.endswith(self.suffix) and token != self.suffix
        written = token.removeprefix(self.prefix) if inside else token
        written = written.removesuffix(self.suffix) if ends else written
        symbols = [(self.prefix if inside or place else "") + one for place, one in enumerate(written)]
        if ends:
            symbols[-1] += self.suffix
        return symbols

    def _product(self, first: str, second: str) -> str:
        return first + second.removeprefix(self.prefix)


class Unigram(Pieces):
    """The likeliest of all ways to write a text as pieces, each with its score."""

    kind = "Unigram"

    def needed(self) -> set[int]:
        """What is unknown, the least likely piece (an unknown character costs more than it, by a fixed amount), and bytes
        where it falls back to them; else single characters, and a piece of which one stands nowhere else."""
        scores = [score for _, score in self.model["vocab"]]
        always = {scores.index(min(scores))} | ({self.model["unk_id"]} if self.model.get("unk_id") is not None else set())
        fallback = self._fallen_back_to()
        if fallback is not None:
            return always | fallback
        single = {token for token in self.numbers if len(token) == 1}
        return always | {number for token, number in self.numbers.items() if len(token) == 1 or not {*token} <= single}

    def cut(self, order: Mapping[int, int]) -> dict[str, Any]:
        kept = sorted((order[number], piece) for number, piece in enumerate(self.model["vocab"]) if number in order)
        if [number for number, _ in kept] != list(range(len(kept))):
            raise refusal("the tokenizer numbers added tokens before pieces, which a Unigram model cannot do once pieces are "
                          "gone")
        unknown = self.model.get("unk_id")
        return {**self.model, "vocab": [list(piece) for _, piece in kept],
                "unk_id": None if unknown is None else order[unknown]}

    def _numbers(self) -> Mapping[str, int]:
        return {token: number for number, (token, _) in reversed(list(enumerate(self.model["vocab"])))}


_KINDS: Mapping[str, type[Pieces]] = {one.kind: one for one in (WordPiece, BPE, Unigram)}


def pieces_of(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """Of a tokenizer.

    Raises:
        CompatibilityError: it is written in Python, of another kind, or one that cuts texts at random.
    """
    model = rules_of(tokenizer)["model"]
    kind = str(model["type"])
    if kind not in _KINDS:
        knows = "it knows whole words only, of which none that is cut off could ever be read again" \
            if kind == "WordLevel" else "which of its tokens texts need is not known"
        raise refusal(f"the tokenizer is a {kind}, and {knows}; expected WordPiece, BPE or Unigram")
    if model.get("dropout"):
        raise refusal(f"the tokenizer merges at random (dropout {model['dropout']:g}), so that the same text needs other "
                      "tokens from call to call; set its dropout to null in tokenizer.json")
    return _KINDS[kind](model, lambda text: words_of(tokenizer, text))


def rules_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `tokenizer.json` says.

    Raises:
        CompatibilityError: a tokenizer in Python has none.
    """
    if not tokenizer.is_fast:
        raise refusal(f"{type(tokenizer).__name__} is a tokenizer in Python, whose rules cannot be read; name the folder of "
                      "one with a tokenizer.json that makes the same tokens (`processor`)")
    rules: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return rules


def words_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """What of a text the tokenizer's model gets, one by one."""
    backend = tokenizer.backend_tokenizer
    text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    return [text] if backend.pre_tokenizer is None else [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
