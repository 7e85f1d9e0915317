"""Words as tokens, of one tokenizer or two: where in a model's tokens a word is answered, and long examples in windows.

A window is a run of words that both tokenizers can read at once, so that both models see the same text around a word. Windows
overlap; a word is answered in the one where more words stand around it, on its poorer side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.text.tokens import Tokens
from stilla.tasks.text.words import Words

NO_WORD, UNSEEN = -1, -2
"""In place of a position: there is no word here; the word has no token (its characters are dropped, or it was cut off)."""

Answering = Literal["first", "last"]

_AT_ONCE = 1000
SLACK = (0, 4, 16, 64)
"""Tokens that windows are made shorter by, one after the other: a text has other tokens beside a cut than within."""


@dataclass(frozen=True)
class Window:
    """Words `first` to `end` of an example, of which `answers` to `until` are answered here."""

    example: int
    first: int
    end: int
    answers: int
    until: int

    def words(self, examples: Sequence[Words]) -> Words:
        whole = examples[self.example]
        return whole if (self.first, self.end) == (0, len(whole)) else whole.part(self.first, self.end)


@dataclass(frozen=True, eq=False)
class Placed:
    """Windows as tokens, and the token that answers for each of their own words: those of window i are
    `places[borders[i] : borders[i + 1]]`, UNSEEN where there is none."""

    tokens: Tokens
    places: NDArray[np.int32]
    borders: NDArray[np.int64]

    def batch(self, windows: Sequence[int]) -> tuple[dict[str, Tensor], Int[Tensor, "batch words"]]:
        """Inputs, and positions of the words in them, NO_WORD behind the last."""
        inputs = self.tokens.batch(windows)
        width = max(1, max(int(self.borders[one + 1] - self.borders[one]) for one in windows))
        places = np.full((len(windows), width), NO_WORD, np.int64)
        for row, one in enumerate(windows):
            own = self.places[self.borders[one] : self.borders[one + 1]].astype(np.int64)
            length = int(self.tokens.starts[one + 1] - self.tokens.starts[one])
            before = inputs["input_ids"].shape[1] - length if self.tokens.left else 0
            places[row, : len(own)] = np.where(own < 0, own, own + before)
        return inputs, torch.from_numpy(places)


def windows(
    examples: Sequence[Words], tokenizers: Sequence[PreTrainedTokenizerBase], length: int, overlap: float
) -> list[Window]:
    """Every example as it is where all tokenizers can read it, else in windows of at most `length` tokens.

    Raises:
        DataError: there is no room for a word beside the special tokens.
    """
    room = length - max(one.num_special_tokens_to_add() for one in tokenizers)
    if room < 1:
        raise DataError(f"data.max_length: got {length}; expected more than the {length - room} special tokens of every text")
    long: dict[int, NDArray[np.int64]] = {}
    for tokenizer in tokenizers:
        for example, starts, ends, total in encoded(tokenizer, examples, room):
            if total > length:
                needs = needs_of(examples[example], starts, ends)
                long[example] = np.maximum(long[example], needs) if example in long else needs
    found: list[Window] = []
    for example, words in enumerate(examples):
        if example not in long:
            found.append(Window(example, 0, len(words), 0, len(words)))
        else:
            found += _fitting(example, words, tokenizers, length, long[example], room, overlap)
    return found


def _fitting(
    example: int, words: Words, tokenizers: Sequence[PreTrainedTokenizerBase], length: int, needs: NDArray[np.int64],
    room: int, overlap: float,
) -> list[Window]:
    """The windows of one example, a little shorter where some have more tokens by themselves than within the example."""
    for slack in SLACK:
        cut = shared_out(example, spans(needs, max(1, room - slack), overlap))
        several = [words.part(one.first, one.end) for one in cut if one.end - one.first > 1]
        if all(total <= length for tokenizer in tokenizers for *_, total in encoded(tokenizer, several)):
            break
    return cut


def spans(needs: Sequence[int] | NDArray[np.int64], room: int, overlap: float) -> list[tuple[int, int]]:
    """(first word, word after the last) of windows of at most `room` tokens, or of a single longer word. `needs`: tokens of
    every word. The next begins so that about `overlap` of a window's words stand in it too, and always goes on."""
    return common_spans([needs], [room], overlap)


def common_spans(
    needs: Sequence[Sequence[int] | NDArray[np.int64]], rooms: Sequence[int], overlap: float
) -> list[tuple[int, int]]:
    """The same for several tokenizers at once: windows that have at most its `room` tokens of each."""
    counted = [np.concatenate([[0], np.cumsum(one)]) for one in needs]
    words, first = len(counted[0]) - 1, 0
    found = []
    while True:
        fitting = [int(np.searchsorted(sums, sums[first] + room, side="right")) - 1 for sums, room in zip(counted, rooms)]
        end = max(first + 1, min(fitting))
        found.append((first, min(end, words)))
        if end >= words:
            return found
        first = max(first + 1, end - int(overlap * (end - first)))


def shared_out(example: int, cut: Sequence[tuple[int, int]]) -> list[Window]:
    """Every word to the window with most words on the poorer side of it; where nothing more stands in the example, a side is
    not poor. Of two that are equal, to the first."""
    last = cut[-1][1]
    most, owner = np.full(last, -1.0), np.zeros(last, np.int64)
    for row, (first, end) in enumerate(cut):
        word = np.arange(first, end)
        before = np.full(len(word), np.inf) if first == 0 else word - first
        behind = np.full(len(word), np.inf) if end == last else end - 1 - word
        context = np.minimum(before, behind)
        better = word[context > most[first:end]]
        most[better], owner[better] = context[better - first], row
    borders = [int(np.searchsorted(owner, row)) for row in range(len(cut) + 1)]  # owners rise with the words
    return [Window(example, first, end, borders[row], borders[row + 1]) for row, (first, end) in enumerate(cut)
            if borders[row] < borders[row + 1]]


def placed(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Words], cut: Sequence[Window], length: int, answering: Answering
) -> Placed:
    """All windows as tokens; a single word that is longer than a window is cut."""
    texts = [one.words(examples) for one in cut]
    typed = "token_type_ids" in tokenizer.model_input_names
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    places: list[NDArray[np.int32]] = []
    for start in tracked(range(0, len(texts), _AT_ONCE), "tokenising"):
        part = texts[start : start + _AT_ONCE]
        said = tokenizer([one.text for one in part], truncation=True, max_length=length, padding=False,
                         return_offsets_mapping=True, return_token_type_ids=typed, return_attention_mask=False,
                         verbose=False)
        for row, (words, window) in enumerate(zip(part, cut[start:])):
            ids.append(np.array(said["input_ids"][row], np.int32))
            if typed:
                types.append(np.array(said["token_type_ids"][row], np.int8))
            begin, end = offsets_of(said["offset_mapping"][row])
            found = _answering(words, begin, end, answering)
            places.append(found[window.answers - window.first : window.until - window.first])
    padding: dict[str, int] = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    if typed:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    tokens = Tokens(np.concatenate(ids), ends_of(ids), np.concatenate(types) if typed else None, padding,
                    tokenizer.padding_side == "left")
    return Placed(tokens, np.concatenate(places), ends_of(places))


def ends_of(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Where each of several arrays begins and ends, end to end."""
    return np.concatenate([[0], np.cumsum([len(one) for one in parts])]).astype(np.int64)


Offsets = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(tokens,) where in the text each begins and ends; special ones, and those of no character, are empty."""


def offsets_of(mapping: Sequence[tuple[int, int]]) -> Offsets:
    """What a tokenizer says, as arrays."""
    pairs = np.array(mapping, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _answering(words: Words, begin: NDArray[np.int64], end: NDArray[np.int64], answering: Answering) -> NDArray[np.int32]:
    """(words,) the first (or last) of the tokens that have a character of the word; UNSEEN where none has.

    A byte-level token may hold nothing but the space before a word, or begin with it (SentencePiece): so what counts is that
    word and token overlap, not where the token begins. A token of two words answers for both.
    """
    real = np.flatnonzero(end > begin)
    if not len(real):
        return np.full(len(words), UNSEEN, np.int32)
    starts, stops = np.array(words.starts), np.array(words.ends)
    if answering == "first":
        chosen = np.searchsorted(end[real], starts, side="right")
    else:
        chosen = np.searchsorted(begin[real], stops, side="left") - 1
    there = (chosen >= 0) & (chosen < len(real))
    token = real[np.clip(chosen, 0, len(real) - 1)]
    there &= (begin[token] < stops) & (end[token] > starts)
    return np.where(there, token, UNSEEN).astype(np.int32)


def needs_of(words: Words, begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """(words,) how many tokens of an example are each word's, those of no character among them (a space before it; special
    ones are the first word's); at least one."""
    owner = np.searchsorted(np.array(words.starts), np.maximum(end - 1, begin), side="right") - 1
    return np.maximum(1, np.bincount(owner.clip(0), minlength=len(words))).astype(np.int64)


def encoded(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Words], over: int = 0
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], int]]:
    """(example, where its tokens begin and end, how many there are with special ones), uncut; `over`: only of texts that
    could have more tokens, which is very rarely two of a byte."""
    some = [number for number, one in enumerate(examples) if 2 * len(one.text.encode()) > over]
    for start in range(0, len(some), _AT_ONCE):
        part = some[start : start + _AT_ONCE]
        said = tokenizer([examples[one].text for one in part], truncation=False, padding=False, verbose=False,
                         return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=False)
        for example, mapping in zip(part, said["offset_mapping"]):
            yield (example, *offsets_of(mapping), len(mapping))


def refuse_slow(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raises:
        CompatibilityError: it does not say where in a text its tokens stand.
    """
    if not tokenizer.is_fast:
        raise CompatibilityError(f"{source!r}: {type(tokenizer).__name__} does not say where in a text its tokens stand, so "
                                 "that nobody knows which are a word's; use a fast tokenizer (tokenizer.json).")
