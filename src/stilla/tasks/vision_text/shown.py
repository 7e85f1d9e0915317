"""Examples to batches: pictures with what is said of them, for both sides; and pictures about which models are asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Batch, Side
from stilla.tasks.text.sequences import NO_ROW, Sequence_, first
from stilla.tasks.text.tokens import Tokens
from stilla.tasks.vision_text.album import Album
from stilla.tasks.vision_text.looker import Looker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Read:
    """All examples as one model reads them. `answers`: of each the positions that predict what is learnt."""

    looker: Looker
    tokens: Tokens
    answers: Sequence[NDArray[np.int64]]

    def inputs(self, examples: Sequence[int]) -> dict[str, Tensor]:
        """Without pixels."""
        made = self.tokens.batch(examples)
        types = made.pop("token_type_ids", None)
        if types is not None and self.looker.types is not None:
            made[self.looker.types] = types
        return made

    def positions(self, examples: Sequence[int]) -> Int[Tensor, "batch answers"]:
        return _padded([self.answers[one] for one in examples], -1)


def read(looker: Looker, sequences: Sequence[Sequence_], *, left: bool = False) -> Read:
    """`left`: padded before the text, as what is written must follow it."""
    ids = np.concatenate([one for one, _ in sequences])
    padding = {"input_ids": int(looker.tokenizer.pad_token_id), "attention_mask": 0}
    if looker.types is not None:
        padding["token_type_ids"] = 0
    starts = np.concatenate([[0], np.cumsum([len(one) for one, _ in sequences])]).astype(np.int64)
    types = None if looker.types is None else looker.marks(ids)
    return Read(looker, Tokens(ids, starts, types, padding, left), [np.flatnonzero(wanted[1:]) for _, wanted in sequences])


@dataclass(frozen=True)
class Collate:
    """`labels`: of each example the tokens that are learnt, as the student numbers them, and as the teacher does. `rows`: the
    row of each in its split, of which `albums` has the student's pictures and the teacher's: one album where they are the
    same."""

    albums: tuple[Album, Album]
    rows: NDArray[np.int64]
    student: Read
    teacher: Read
    labels: Sequence[NDArray[np.int32]]

    def __call__(self, examples: Sequence[int]) -> Batch:
        chosen = list(examples)
        album, others = self.albums
        looked = [album.look(int(self.rows[one])) for one in chosen]
        student = {**self.student.inputs(chosen), **self.student.looker.pixels([seen for seen, _ in looked])}
        if others is not album:
            looked = [others.look(int(self.rows[one])) for one in chosen]
        teacher = student if self.teacher is self.student else {
            **self.teacher.inputs(chosen), **self.teacher.looker.pixels([seen for seen, _ in looked])}
        places = {side.value: one.positions(chosen)
                  for side, one in ((Side.STUDENT, self.student), (Side.TEACHER, self.teacher))}
        return Batch(student=student, teacher=teacher, words=places,
                     labels=_padded([self.labels[one] for one in chosen], NO_ROW),
                     keys=torch.from_numpy(self.rows[chosen]),
                     looks=torch.from_numpy(np.stack([np.frombuffer(digest, np.uint8) for _, digest in looked])))


@dataclass(frozen=True, eq=False)
class Posed:
    """Pictures about which a model is asked, each before an answer."""

    album: Album
    rows: NDArray[np.int64]
    read: Read

    @property
    def lengths(self) -> NDArray[np.int64]:
        """In tokens."""
        return self.read.tokens.lengths

    def select(self, examples: NDArray[np.int64]) -> Posed:
        chosen = replace(self.read, tokens=self.read.tokens.select(examples), answers=())
        return replace(self, rows=self.rows[examples], read=chosen)

    def batch(self, examples: Sequence[int]) -> dict[str, Tensor]:
        pictures = [self.album.look(int(self.rows[one]))[0] for one in examples]
        return {**self.read.inputs(examples), **self.read.looker.pixels(pictures)}


def continued(looker: Looker, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
    """What was asked with what was written after it; rows are the written tokens, each at the place before it."""
    there = inputs["attention_mask"].cpu().bool()
    before = [ids[mask].numpy().astype(np.int32) for ids, mask in zip(inputs["input_ids"].cpu(), there)]
    whole = [(np.concatenate([asked, np.array(more, np.int32)]), np.repeat([False, True], [len(asked), len(more)]))
             for asked, more in zip(before, written, strict=True)]
    made = read(looker, whole)
    every = range(len(whole))
    texts = made.inputs(every)
    batch = {**{name: value for name, value in inputs.items() if name not in texts}, **texts}
    places = made.positions(every)
    return Batch(student=batch, teacher=batch, words={side.value: places for side in Side},
                 labels=_padded([np.array(one, np.int32) for one in written], NO_ROW))


# --- both sides of an example ---


def fitting(
    ours: Mapping[int, Sequence_], theirs: Mapping[int, Sequence_], lookers: tuple[Looker, Looker], length: int,
    row_of: Callable[[int], int],
) -> tuple[list[int], list[Sequence_], list[Sequence_]]:
    """The numbers of the examples that both read within a length, and how: as many tokens to learn on both sides.

    Longer ones are cut at the end. One is left out, and counted, where that would cut a picture, or leaves nothing to learn.
    row_of: an example's row, by its number.

    Raises:
        CompatibilityError: the two templates write what is learnt in other tokens.
    """
    kept, student, teacher = list[int](), list[Sequence_](), list[Sequence_]()
    cut, out, refused = 0, 0, len(ours.keys() ^ theirs.keys())
    for number in sorted(ours.keys() & theirs.keys()):
        both = ours[number], theirs[number]
        long = [len(ids) > length for ids, _ in both]
        lost = [looker.marks(ids[length:]).any() for (ids, _), looker in zip(both, lookers, strict=True)]
        short = [(ids[:length], wanted[:length]) for ids, wanted in both]
        rows = min(int(wanted[1:].sum()) for _, wanted in short)
        if any(lost) or not rows:
            out += 1
            continue
        one, other = (first(some, rows) for some in short)
        if not np.array_equal(_wanted(one), _wanted(other)):
            raise CompatibilityError(f"image-text-to-text: what is learnt of row {row_of(number)} is written in other tokens "
                                     "for the student than for the teacher: their chat templates write answers otherwise. "
                                     "Give both the same template, or learn from texts that the teacher writes "
                                     "(`completions: teacher`, objectives: [{kind: labels}])")
        cut += any(long)
        kept.append(number)
        student.append(one)
        teacher.append(other)
    _tell(len(kept) + out, cut, out, refused, length, more_room(length, lookers))
    return kept, student, teacher


def more_room(length: int, lookers: Sequence[Looker]) -> str:
    """What can be done where models, a student's first, have room for so many tokens of an example."""
    names = ("the student", "the teacher") if len({id(one) for one in lookers}) > 1 else ("a model",)
    full = [name for name, one in zip(names, lookers) if int(one.tokenizer.model_max_length) <= length]
    if not full:
        return "raise data.max_length, or make pictures smaller"
    reads = "reads" if len(full) == 1 else "read"
    return f"{' and '.join(full)} {reads} no more: make pictures smaller, or let less stand around them"


def _tell(count: int, cut: int, out: int, refused: int, length: int, more: str) -> None:
    if cut:
        logger.warning("%d of %d examples are longer than %d tokens: cut at the end", cut, count, length)
    if out:
        logger.warning("%d of %d examples are left out: within %d tokens there is not all of their pictures with something "
                       "to learn after them; %s", out, count, length, more)
    if refused:
        logger.warning("%d examples are left out, as one of both templates refuses them", refused)


def _wanted(some: Sequence_) -> NDArray[np.int32]:
    ids, wanted = some
    return ids[wanted]


def learnt_tokens(sequences: Sequence[Sequence_]) -> list[NDArray[np.int32]]:
    """Of each the tokens that are to be learnt."""
    return [_wanted(one) for one in sequences]


def _padded(parts: Sequence[NDArray[Any]], value: int) -> Tensor:
    made = np.full((len(parts), max(map(len, parts))), value, np.int64)
    for row, part in enumerate(parts):
        made[row, : len(part)] = part
    return torch.from_numpy(made)
