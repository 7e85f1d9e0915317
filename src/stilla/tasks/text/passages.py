"""Questions with their passages as tokens, in windows: which positions a model may answer at, and what stands there.

A window is what stands before the passage, some tokens of the passage, and what stands behind it. It is cut from the tokens
of the whole, so that a token is the same in every window; both models read the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError
from stilla.runtime.narrate import tracked
from stilla.signals import Batch, Side
from stilla.tasks.text.asked import Question
from stilla.tasks.text.tokens import Tokens
from stilla.tasks.text.windows import ends_of, offsets_of, refuse_slow, spans

NOWHERE = -1
"""In place of a position: no answer can be there (the question, special tokens, padding)."""

_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Passages:
    """Windows of questions. `tokens[i]` are those of window i, of question `owners[i]`.

    `begins`, `ends`: of every token the characters of the passage that it holds; both NOWHERE where no answer can be, both 0
    at the place that says that there is none. `labels`: (windows, 2) the first and last token of the answer.
    """

    tokens: Tokens
    owners: NDArray[np.int64]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: NDArray[np.int64]


def passages(
    tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], length: int, overlap: float, least: int
) -> tuple[Passages, list[int]]:
    """All windows of at most `length` tokens, and the questions that leave less room than `least` tokens of the passage.

    Raises:
        CompatibilityError: the tokenizer has no token that stands for a whole text.
    """
    refuse_slow(tokenizer, tokenizer.name_or_path or type(tokenizer).__name__)
    if tokenizer.cls_token_id is None:
        raise CompatibilityError(f"{tokenizer.name_or_path!r}: {type(tokenizer).__name__} has no token that stands for a "
                                 "whole text (cls_token), at which models say that a passage does not answer. Take an "
                                 "encoder, or answer in words: task: seq2seq.")
    typed = "token_type_ids" in tokenizer.model_input_names
    made: list[_Window] = []
    full: list[int] = []
    for start in tracked(range(0, len(asked), _AT_ONCE), "tokenising"):
        part = asked[start : start + _AT_ONCE]
        encoded = tokenizer([one.question for one in part], [one.context for one in part], truncation=False, padding=False,
                            return_offsets_mapping=True, return_token_type_ids=typed, return_attention_mask=False,
                            verbose=False)
        for row, one in enumerate(part):
            whole = _whole(encoded, row, tokenizer.cls_token_id, typed)
            room = length - (len(whole.ids) - whole.size)
            if room < min(least, whole.size):
                full.append(start + row)
            else:
                made += _cut(start + row, one, whole, room, overlap)
    return _together(made, tokenizer, typed), full


@dataclass(frozen=True, eq=False)
class _Whole:
    """A question and its whole passage: tokens `first` to `end` are the passage's."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first


@dataclass(frozen=True, eq=False)
class _Window:
    owner: int
    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: tuple[int, int]


def _whole(encoded: Any, row: int, summary: int, typed: bool) -> _Whole:
    ids = np.array(encoded["input_ids"][row], np.int32)
    begin, end = offsets_of(encoded["offset_mapping"][row])
    own = np.array([part == 1 for part in encoded.sequence_ids(row)])
    there = own & (end > begin)
    begins, ends = (np.where(there, one, NOWHERE).astype(np.int32) for one in (begin, end))
    nothing = int(np.flatnonzero(ids == summary)[0])
    begins[nothing] = ends[nothing] = 0
    places = np.flatnonzero(own)
    first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(ids), len(ids))
    types = np.array(encoded["token_type_ids"][row], np.int8) if typed else None
    return _Whole(ids, types, begins, ends, first, last)


def _cut(owner: int, one: Question, whole: _Whole, room: int, overlap: float) -> list[_Window]:
    found = []
    for start, stop in spans(np.ones(whole.size, np.int64), room, overlap) if whole.size else [(0, 0)]:
        chosen = np.r_[0 : whole.first, whole.first + start : whole.first + stop, whole.end : len(whole.ids)]
        begins, ends = whole.begins[chosen], whole.ends[chosen]
        types = None if whole.types is None else whole.types[chosen]
        found.append(_Window(owner, whole.ids[chosen], types, begins, ends, _label(one, begins, ends)))
    return found


def _label(one: Question, begins: NDArray[np.int32], ends: NDArray[np.int32]) -> tuple[int, int]:
    """The tokens with the first and the last character of the first answer that stands whole in the window; the place that
    says that there is none, twice, where none does."""
    real = np.flatnonzero(ends > 0)
    for start, stop in one.answers:
        inside = real[(ends[real] > start) & (begins[real] < stop)]
        if len(inside) and begins[real[0]] <= start and ends[real[-1]] >= stop:
            return int(inside[0]), int(inside[-1])
    nothing = int(np.flatnonzero(ends == 0)[0])
    return nothing, nothing


def _together(made: Sequence[_Window], tokenizer: PreTrainedTokenizerBase, typed: bool) -> Passages:
    padding: dict[str, int] = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    if typed:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    types = [one.types for one in made if one.types is not None]
    tokens = Tokens(_joined([one.ids for one in made], np.int32), ends_of([one.ids for one in made]),
                    _joined(types, np.int8) if typed else None, padding, tokenizer.padding_side == "left")
    return Passages(tokens, np.array([one.owner for one in made], np.int64), _joined([one.begins for one in made], np.int32),
                    _joined([one.ends for one in made], np.int32),
                    np.array([one.labels for one in made], np.int64).reshape(-1, 2))


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


@dataclass(frozen=True, eq=False)
class Collate:
    """Windows as a batch. `width`: classes of a row, the same in every batch: the longest window that there may be."""

    passages: Passages
    keys: NDArray[np.int64]
    width: int

    def __call__(self, chosen: Sequence[int]) -> Batch:
        tokens = self.passages.tokens
        inputs = tokens.batch(chosen)
        places = np.full((len(chosen), self.width), NOWHERE, np.int64)
        characters = np.full((len(chosen), self.width, 2), NOWHERE, np.int64)
        for row, one in enumerate(chosen):
            own = slice(int(tokens.starts[one]), int(tokens.starts[one + 1]))
            length = own.stop - own.start
            before = inputs["input_ids"].shape[1] - length if tokens.left else 0
            there = self.passages.ends[own] != NOWHERE
            places[row, :length] = np.where(there, np.arange(length) + before, NOWHERE)
            characters[row, :length, 0], characters[row, :length, 1] = self.passages.begins[own], self.passages.ends[own]
        side = torch.from_numpy(places)
        return Batch(student=inputs, teacher=inputs, labels=torch.from_numpy(self.passages.labels[list(chosen)]),
                     keys=torch.from_numpy(self.keys[list(chosen)]), places=side, characters=torch.from_numpy(characters))


FLOOR = -29952.0
"""The logit of a class at which no answer can be; a number that float16 and bfloat16 hold too."""


def by_place(logits: Tensor, places: Int[Tensor, "batch classes"]) -> Tensor:
    """(batch, positions, 2) start and end logits -> (batch, 2, classes), FLOOR where no answer can be."""
    chosen = places.clamp_min(0).unsqueeze(-1).expand(-1, -1, logits.shape[-1])
    there = (places >= 0).unsqueeze(-1)
    return torch.where(there, logits.gather(1, chosen), FLOOR).transpose(1, 2)


def mask_of(batch: Batch, side: Side) -> Tensor:
    """(batch, positions) bool."""
    inputs: Mapping[str, Tensor] = batch[side.value]
    return inputs["attention_mask"].bool()
