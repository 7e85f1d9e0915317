"""Questions with their passages as tokens, in windows: which positions a model may answer at, and what stands there.

A window is what stands before the passage, some tokens of the passage, and what stands behind it. It is cut from the tokens
of the whole, so that a token is the same in every window; both models read the same windows, also where their tokens differ.
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
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.text.across import FLOOR, NOWHERE, Across, Spans, borders, ranks, stands_for
from stilla.tasks.text.asked import Question
from stilla.tasks.text.tokens import Tokens
from stilla.tasks.text.windows import common_spans, ends_of, offsets_of, refuse_slow

_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Passages:
    """Windows of questions. `tokens[i]` are those of window i, of question `owners[i]`.

    `begins`, `ends`: of every token the characters of the passage that it holds; both NOWHERE where no answer can be, both 0
    at the place that says that there is none. `labels`: (windows, 2) the first and last token of the answer, NO_ANSWER where
    nobody has said it.
    """

    tokens: Tokens
    owners: NDArray[np.int64]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Read:
    """The same windows as both models read them. `across`: which of the one's tokens stand for the other's; None where both
    have the same. `full`: questions that leave less room than is wanted; `apart`: those with a piece of the passage, longer
    than a window, in which the two have no border between tokens in common."""

    student: Passages
    teacher: Passages
    across: Across | None
    full: list[int]
    apart: list[int]


def passages(
    tokenizers: Sequence[PreTrainedTokenizerBase], asked: Sequence[Question], length: int, overlap: float, least: int,
    teachers: Sequence[Question] | None = None,
) -> Read:
    """All windows of at most `length` tokens. `tokenizers`: the student's, and the teacher's where that is another. `least`:
    so many tokens of the passage have to have room. `teachers`: what the teacher is asked about the same passages, where that
    is something else.

    Raises:
        CompatibilityError: a tokenizer has a token that stands for a whole text, and puts it nowhere.
    """
    for tokenizer in tokenizers:
        _refuse_unfit(tokenizer)
    both = [asked, *([asked] * (len(tokenizers) - 1) if teachers is None else [teachers])]
    if teachers is not None:
        tokenizers = [tokenizers[0], tokenizers[-1]]
    made: list[list[_Window]] = []
    full: list[int] = []
    apart: list[int] = []
    for start in tracked(range(0, len(asked), _AT_ONCE), "tokenising"):
        several = [_wholes(tokenizer, one[start : start + _AT_ONCE]) for tokenizer, one in zip(tokenizers, both, strict=True)]
        for row, one in enumerate(asked[start : start + _AT_ONCE]):
            wholes = [wholes[row] for wholes in several]
            rooms = [length - (len(whole.ids) - whole.size) for whole in wholes]
            parts = _parts(one, wholes)
            if any(room < min(least, whole.size) for room, whole in zip(rooms, wholes)):
                full.append(start + row)
            elif any((np.diff(places) > room).any() for places, room in zip(parts, rooms)):
                apart.append(start + row)
            else:
                made += _cut(start + row, one, wholes, parts, rooms, overlap)
    sides = [_together([windows[side] for windows in made], tokenizer) for side, tokenizer in enumerate(tokenizers)]
    across = None if len(sides) == 1 else Across.of([_stand_for(asked[ours.owner], ours, theirs) for ours, theirs in made])
    return Read(sides[0], sides[-1], across, full, apart)


def _refuse_unfit(tokenizer: PreTrainedTokenizerBase) -> None:
    refuse_slow(tokenizer, tokenizer.name_or_path or type(tokenizer).__name__)
    name = f"{tokenizer.name_or_path!r}: {type(tokenizer).__name__}"
    if tokenizer.cls_token_id is not None and tokenizer.cls_token_id not in tokenizer("a", "b")["input_ids"]:
        raise CompatibilityError(f"{name} puts its {tokenizer.cls_token} (cls_token), at which models say that a passage "
                                 "does not answer, around no text. Give it the template that its model was trained with "
                                 "(tokenizer.json: post_processor).")


def _is_typed(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "token_type_ids" in tokenizer.model_input_names


def _wholes(tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question]) -> list[_Whole]:
    typed = _is_typed(tokenizer)
    encoded = tokenizer([one.question for one in asked], [one.context for one in asked], truncation=False, padding=False,
                        return_offsets_mapping=True, return_token_type_ids=typed, return_attention_mask=False, verbose=False)
    marks = [one for one in (tokenizer.cls_token_id, tokenizer.bos_token_id) if one is not None]
    return [_whole(encoded, row, marks, typed) for row in range(len(asked))]


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

    @property
    def passage(self) -> Spans:
        """The characters of every token of the passage, in order; empty where it holds none."""
        own = slice(self.first, self.end)
        return self.begins[own], self.ends[own]


@dataclass(frozen=True, eq=False)
class _Window:
    owner: int
    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: tuple[int, int]


def _whole(encoded: Any, row: int, marks: Sequence[int], typed: bool) -> _Whole:
    """`marks`: tokens at which models say that there is no answer, the first of them that stands there; without one the first
    token of all does, as in the scripts that such models are trained by."""
    ids, parts = np.array(encoded["input_ids"][row], np.int32), encoded.sequence_ids(row)
    begin, end = offsets_of(encoded["offset_mapping"][row])
    own, around = (np.array([part == said for part in parts]) for said in (1, None))
    there = own & (end > begin)
    begins, ends = (np.where(there, one, NOWHERE).astype(np.int32) for one in (begin, end))
    # as text, such a token says nothing of the whole
    nothing = next((int(places[0]) for mark in marks if len(places := np.flatnonzero(around & (ids == mark)))), 0)
    begins[nothing] = ends[nothing] = 0
    places = np.flatnonzero(own)
    first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(ids), len(ids))
    types = np.array(encoded["token_type_ids"][row], np.int8) if typed else None
    return _Whole(ids, types, begins, ends, first, last)


def _parts(one: Question, wholes: Sequence[_Whole]) -> list[NDArray[np.int64]]:
    """Where the passage may be cut: before so many tokens of each."""
    if len(wholes) == 1:
        return [np.arange(wholes[0].size + 1)]
    ours, theirs = wholes
    return list(borders(ranks(one.context), ours.passage, theirs.passage))


def _cut(
    owner: int, one: Question, wholes: Sequence[_Whole], parts: Sequence[NDArray[np.int64]], rooms: Sequence[int],
    overlap: float,
) -> list[list[_Window]]:
    """All windows, each as every tokenizer has it."""
    cut = common_spans([np.diff(places) for places in parts], rooms, overlap) if len(parts[0]) > 1 else [(0, 0)]
    return [[_window(owner, one, whole, int(places[start]), int(places[stop])) for whole, places in zip(wholes, parts)]
            for start, stop in cut]


def _window(owner: int, one: Question, whole: _Whole, start: int, stop: int) -> _Window:
    chosen = np.r_[0 : whole.first, whole.first + start : whole.first + stop, whole.end : len(whole.ids)]
    begins, ends = whole.begins[chosen], whole.ends[chosen]
    types = None if whole.types is None else whole.types[chosen]
    return _Window(owner, whole.ids[chosen], types, begins, ends, _label(one, begins, ends))


def _stand_for(one: Question, ours: _Window, theirs: _Window) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return stands_for(ranks(one.context), (ours.begins, ours.ends), (theirs.begins, theirs.ends))


def _label(one: Question, begins: NDArray[np.int32], ends: NDArray[np.int32]) -> tuple[int, int]:
    """The tokens with the first and the last character of the first answer that stands whole in the window; the place that
    says that there is none, twice, where none does; NO_ANSWER, twice, where nobody knows it."""
    if not one.labelled:
        return NO_ANSWER, NO_ANSWER
    real = np.flatnonzero(ends > 0)
    for start, stop in one.answers:
        inside = real[(ends[real] > start) & (begins[real] < stop)]
        if len(inside) and begins[real[0]] <= start and ends[real[-1]] >= stop:
            return int(inside[0]), int(inside[-1])
    nothing = int(np.flatnonzero(ends == 0)[0])
    return nothing, nothing


def _together(made: Sequence[_Window], tokenizer: PreTrainedTokenizerBase) -> Passages:
    typed = _is_typed(tokenizer)
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

    read: Read
    keys: NDArray[np.int64]
    width: int

    def __call__(self, chosen: Sequence[int]) -> Batch:
        sides = {"student": self._side(self.read.student, chosen)}
        sides["teacher"] = sides["student"] if self.read.across is None else self._side(self.read.teacher, chosen)
        more = {} if self.read.across is None else {"across": self._across(self.read.across, chosen)}
        inputs, places, characters = ({name: one[part] for name, one in sides.items()} for part in range(3))
        return Batch(**inputs, places=places, characters=characters, **more,
                     labels=torch.from_numpy(self.read.student.labels[list(chosen)]),
                     keys=torch.from_numpy(self.keys[list(chosen)]))

    def _side(self, passages: Passages, chosen: Sequence[int]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Inputs, the position of every class in them, and what characters it holds."""
        tokens = passages.tokens
        inputs = tokens.batch(chosen)
        places = np.full((len(chosen), self.width), NOWHERE, np.int64)
        characters = np.full((len(chosen), self.width, 2), NOWHERE, np.int64)
        for row, one in enumerate(chosen):
            own = slice(int(tokens.starts[one]), int(tokens.starts[one + 1]))
            length = own.stop - own.start
            before = inputs["input_ids"].shape[1] - length if tokens.left else 0
            there = passages.ends[own] != NOWHERE
            places[row, :length] = np.where(there, np.arange(length) + before, NOWHERE)
            characters[row, :length, 0], characters[row, :length, 1] = passages.begins[own], passages.ends[own]
        return inputs, torch.from_numpy(places), torch.from_numpy(characters)

    def _across(self, across: Across, chosen: Sequence[int]) -> dict[str, Tensor]:
        found = {}
        for name, flat, passages in (("to", across.to, self.read.teacher), ("cells", across.cells, self.read.student)):
            whole = np.full((len(chosen), 2, self.width), NOWHERE, np.int64)
            for row, one in enumerate(chosen):
                own = flat[int(passages.tokens.starts[one]) : int(passages.tokens.starts[one + 1])]
                whole[row, :, : len(own)] = own.T
            found[name] = torch.from_numpy(whole)
        return found


def by_place(logits: Tensor, places: Int[Tensor, "batch classes"]) -> Tensor:
    """(batch, positions, 2) start and end logits -> (batch, 2, classes), FLOOR where no answer can be."""
    chosen = places.clamp_min(0).unsqueeze(-1).expand(-1, -1, logits.shape[-1])
    there = (places >= 0).unsqueeze(-1)
    return torch.where(there, logits.gather(1, chosen), FLOOR).transpose(1, 2)


def mask_of(batch: Batch, side: Side) -> Tensor:
    """(batch, positions) bool."""
    inputs: Mapping[str, Tensor] = batch[side.value]
    return inputs["attention_mask"].bool()
