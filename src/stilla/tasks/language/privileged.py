"""Texts that teachers alone read before what both say: sources in another language, prompts with more in them (see
`shared.privileged`)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.signals import Side
from stilla.tasks.language import translations
from stilla.tasks.language.columns import Layout, is_talk
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.shared.broken import refuse_empty
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.columns import is_text, said
from stilla.tasks.shared.privileged import column_of_teacher
from stilla.tasks.text.sequences import NO_ROW, Pieces, Sequence_, first, joined

logger = logging.getLogger(__name__)

_OF_SOURCES = ("prefix", "source_language")
"""What belongs to a source, and is another where a teacher reads another."""


def sources(
    section: Seq2SeqData, own: Sequence[str], columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]
) -> dict[str, str]:
    """What of the section is another for teachers, as the recipe says it. own: the source's and the target's column.

    Raises:
        DataError: see `column_of_teacher`; a source is null or empty; a language without that of the students.
    """
    said = {name: columns[name] for name in _OF_SOURCES if name in columns}
    if several := [name for name, words in said.items() if len(words) != 1]:
        raise DataError(f"teacher.data.{several[0]}: got {list(said[several[0]])}; expected one text.")
    if "source_language" in said and section.source_language is None:
        raise DataError("teacher.data.source_language: nobody says in which language students read, so that a tokenizer "
                        "would mark their sources as the teacher's. Name data.source_language too.")
    flat = {name: split.flatten() for name, split in splits.items()}  # a field within a column is `column.field`
    rest = {name: one for name, one in columns.items() if name not in _OF_SOURCES}
    found = column_of_teacher(rest, "source", own[0], flat, own[1:], beside=_OF_SOURCES)
    problems: list[str] = []
    for name, split in splits.items() if found else ():
        attempt(problems, refuse_empty, section, name, split, [translations.values(split, found)], repr(found))
    if problems:
        raise all_at_once(problems, DataError)
    return {"source": found or own[0], **{name: words[0] for name, words in said.items()}}


# --- prompts and conversations ---


def layout(own: Layout, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Layout:
    """Where it stands what teachers read before the answers; `own` where that is the same. columns: of the recipe, by the
    field that names the students'.

    Raises:
        DataError: see `column_of_teacher`; or nothing stands before what is learnt.
    """
    if own.source == "text":
        raise DataError(f"teacher.data.{next(iter(columns))}: every token of plain text is learnt, and nothing stands before "
                        "it that could be another. Give prompts and completions (data.prompt, data.completion), or let the "
                        "teacher read more of the same text (teacher.data: {max_length: ...})")
    talking = own.source == "messages"
    answers = own.columns[1:]
    field, beside = "prompt" if answers else "messages", "tools" if talking else "context"
    find = partial(column_of_teacher, columns, splits=splits, labels=answers, fits=_anything if talking else is_text)
    read = find(field, own.columns[0], beside=(beside,))
    more = find(beside, own.tools if talking else own.context, beside=(field,))
    if read and talking and (silent := [name for name, split in splits.items() if not is_talk(split, read)]):
        raise DataError(f"teacher.data.{field}: {read!r} of data.{silent[0]} holds {said(splits[silent[0]].features[read])}; "
                        "expected lists of {role, content}.")
    read_columns = (read or own.columns[0], *answers)
    if talking:
        return replace(own, columns=read_columns, tools=more or own.tools)
    return replace(own, columns=read_columns, context=more or own.context)


def _anything(_: Any) -> bool:
    """Whether a column may hold conversations, or tools: that is seen by what stands in it."""
    return True


def paired(own: Pieces, theirs: Pieces) -> tuple[Pieces, Pieces]:
    """What both read of the same examples (of plain text, of the same pieces), with as many tokens to predict: the first that
    both have room for. An example of which one has none is left out, and counted.

    Raises:
        CompatibilityError: these are other tokens.
    """
    mine, others = _numbered(own), _numbered(theirs)
    kept: tuple[list[tuple[Sequence_, int]], ...] = [], []
    for place in (one for one in mine if one in others):
        rows = min(int(wanted[1:].sum()) for _, wanted in (mine[place], others[place]))
        both = [first(one, rows) for one in (mine[place], others[place])]
        (ids, wanted), (told, asked) = both
        if not np.array_equal(ids[wanted], told[asked]):
            raise CompatibilityError(f"teacher.data: what is learnt of row {place[0]} is said otherwise in what the teacher "
                                     "reads (other answers, or a template that writes them otherwise), and rows are its "
                                     "tokens. Give the same answers behind what the teacher reads, or learn from texts that "
                                     "it writes (completions: teacher, objectives: [{kind: labels}])")
        for side, one in zip(kept, both):
            side.append((one, place[0]))
    if out := len(mine.keys() ^ others.keys()):
        logger.warning("%d of %d examples are left out: one of both models has no room for anything that is learnt of them",
                       out, len(mine.keys() | others.keys()))
    return joined(kept[0]), joined(kept[1])


@dataclass(frozen=True)
class Room:
    """What a model has room for: `pieces` of `length` tokens at most, as the recipe says where it is `bounded`, else because
    the model reads no more."""

    pieces: Pieces | None
    length: int
    bounded: bool
    of_teacher: bool

    @property
    def field(self) -> str:
        return "teacher.data.max_length" if self.of_teacher else "data.max_length"

    @property
    def more(self) -> str:
        """What makes more of it."""
        if self.bounded:
            return f"raise {self.field}"
        return f"{'the teacher' if self.of_teacher else 'a model'} reads no more: let less stand before what is learnt"


def no_room(rooms: Sequence[Room]) -> str:
    """Why nothing can be learnt of what models with these rooms, a student's first, read of the same examples."""
    for room in rooms:
        if not room.pieces:
            there = f"the first {room.length}{' that the teacher reads' if room.of_teacher else ''}"
            return f"none has two tokens, or what is to be learnt stands behind {there}; {room.more}"
    return f"no two models have room for the same; {' or '.join(room.more for room in rooms)}"


def _numbered(pieces: Pieces) -> dict[tuple[int, int], Sequence_]:
    """By document, and which of its pieces it is."""
    seen, found = Counter[int](), dict[tuple[int, int], Sequence_]()
    for document, one in zip(pieces.documents.tolist(), pieces.sequences(), strict=True):
        found[document, seen[document]] = one
        seen[document] += 1
    return found


def places(student: Int[Tensor, "batch positions"], teacher: Int[Tensor, "batch places"]) -> dict[str, Tensor]:
    """By side, where it predicts what is learnt, of labels at its positions; negative behind the last."""
    found = {}
    for side, labels in ((Side.STUDENT, student), (Side.TEACHER, teacher)):
        there = [one.nonzero().squeeze(1) for one in labels != NO_ROW]
        found[side.value] = pad_sequence(there, batch_first=True, padding_value=-1)
    return found
