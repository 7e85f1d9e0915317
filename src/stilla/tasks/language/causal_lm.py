"""Causal language models: the next token of plain text, of completions after their prompts, of an assistant's turns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import Evaluate, ModelSource
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.language import conversations, documents, privileged, readable, talks, translations
from stilla.tasks.language import prompts as _prompts
from stilla.tasks.language.columns import Layout, layout, unlabelled
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.models import refuse_leaks, refuse_looking_ahead
from stilla.tasks.language.readable import Read
from stilla.tasks.language.sections import CausalLMData, WritingEvaluate
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.vocabulary import Asking, Vocabulary, asked_by, same_inputs, with_unlabelled
from stilla.tasks.language.weighed import weights_in, with_weights
from stilla.tasks.language.writing import Asked, Writes, exams_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.text import tokens
from stilla.tasks.text.sequences import NO_ROW, Blocks, Pieces

logger = logging.getLogger(__name__)

@dataclass(frozen=True)
class CausalLM(Vocabulary[CausalLMData], Writes):
    """The next token: of plain text, of completions after a prompt, or of what an assistant says."""

    layout: Layout = field(default_factory=Layout)
    """Which columns a row is made of, and what it then is."""
    theirs: Layout | None = None
    """Where teachers read something else before the same answers; None: what their students read."""
    longest: int | None = None
    """How many tokens they read, where those are not as many."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and reads that."""

    kind: ClassVar[str] = "causal-lm"
    pipeline = "text-generation"
    data_section = CausalLMData
    evaluate_section = WritingEvaluate
    heads: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    auto: ClassVar[Any] = AutoModelForCausalLM

    @classmethod
    def understand(cls, section: CausalLMData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        found = attempt(problems, layout, section, train)
        if found is not None:
            absent = _columns.missing(found.all, splits)
            for name, split in splits.items() if not absent else ():
                attempt(problems, readable.refuse_broken, section, name, split, found)
            problems += absent
        if problems or found is None:
            raise all_at_once(problems, DataError)
        if found.context is not None:
            logger.warning("data: %r and %r are written as one prompt in Alpaca's words (docs/language-models.md); the "
                           "student has to be asked in them too", found.columns[0], found.context)
        return cls(section=section, layout=found)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """Prompts, conversations, or what belongs to them, before the same answers."""
        if not columns:
            return self
        other = privileged.layout(self.layout, columns, splits)
        problems: list[str] = []
        for name, split in splits.items() if other != self.layout else ():
            attempt(problems, readable.refuse_broken, self.section, name, split, other)
        if problems:
            raise all_at_once(problems, DataError)
        if other.context is not None and self.layout.context is None:
            logger.warning("teacher.data: the teacher is asked with %r and %r as one prompt in Alpaca's words "
                           "(docs/language-models.md), and its student with %r as it stands", other.columns[0], other.context,
                           self.layout.columns[0])
        return replace(self, theirs=None if other == self.layout else other)._each_in_its_row()

    def taught_at_length(self, length: int) -> Self:
        """More of a prompt, or of the text before the tokens that a student reads too."""
        own = None if self.section is None else self.section.max_length
        if self.layout.source == "text" and own is not None and length < own:
            raise DataError(f"teacher.data.max_length: got {length}, and a piece of plain text has up to {own} tokens "
                            "(data.max_length), which the teacher is asked about. Expected more")
        return self if length == own else replace(self, longest=length)._each_in_its_row()

    def _each_in_its_row(self) -> Self:
        if self._told and self.section is not None and self.section.pack:
            raise DataError("data.pack: the teacher reads something else than its student (teacher.data), so that as many "
                            "tokens of one would not fit into a row of the other. Leave it out, or say false.")
        return self

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self._told else self

    def teaching(self) -> Self:
        return self.of_teacher()

    @property
    def _told(self) -> bool:
        return self.theirs is not None or self.longest is not None

    @property
    def _layouts(self) -> tuple[Layout, ...]:
        """The students', and the teachers' where that is another."""
        return (self.layout,) if self.theirs is None else (self.layout, self.theirs)

    @property
    def _layout(self) -> Layout:
        """By which this task's models read."""
        return self.theirs if self.as_teacher and self.theirs is not None else self.layout

    def _length(self, *processors: Any) -> int:
        """How much of an example they read."""
        own = None if self.section is None else self.section.max_length
        return tokens.longest(processors, self.longest if self.as_teacher and self.longest is not None else own)

    def _readable(self, split: Dataset, unanswered: NDArray[np.bool_] | None = None) -> Read:
        return readable.read(split, self._layout, unanswered, also=self.layout if self.as_teacher else self.theirs)

    @property
    def packs(self) -> bool:
        """Whether training examples share rows; what is measured never does."""
        wanted = None if self.section is None else self.section.pack
        return self.layout.source == "text" and not self._told if wanted is None else wanted

    def resolved(self, section: CausalLMData) -> CausalLMData:
        return section.model_copy(update={**self.layout.resolved(), "pack": self.packs})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        loaded = super().load(source, labelled=labelled)
        refuse_looking_ahead(loaded.model, source.model)
        if self.packs and self.section is not None:
            refuse_leaks(loaded.model, source.model)
        return loaded

    def texts(self, split: Dataset, processor: Any) -> Texts:
        """Conversations as the template writes them; prompts and completions apart, as they are tokenised."""
        read = self._readable(split)
        if self.layout.source == "text":
            return Texts(read.rows, None)
        length = self._length(processor)
        if self.layout.source == "messages":
            whole = conversations.written(processor, read.rows, read.keys, skip=self._skips())
            # answers that were cut when they were written are tokenised by themselves
            apart = [row.messages[row.asked]["content"] for row in read.rows] if CUT in split.column_names else []
            return tokens.beginnings(processor, chain(whole, apart), length)
        return tokens.beginnings(processor, (text for row in read.rows for text in row), length)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        asked = same_inputs if teacher is None else asked_by(student, teacher)
        told = teacher is not None and self._told and not self.as_teacher
        both = [student] if teacher is None or told else [student, teacher]
        most = self._length(*both)
        # of plain text a teacher is asked about the tokens of its students' pieces
        length = min(tokens.readable(both, self.section.max_length), self.of_teacher()._length(teacher) if told else most)
        pieces = self._pieces(split, student, length, most)
        rooms, others = [self._room(pieces, most)], None
        if told:  # in the student's tokens, as where both read the same
            alone = self.of_teacher()
            theirs = alone._pieces(split, student, length, alone._length(teacher))
            rooms.append(alone._room(theirs, alone._length(teacher)))
            pieces, others = privileged.paired(pieces, theirs)
        if not len(pieces):
            raise DataError(f"no token can be predicted in any of the {len(split)} examples: {privileged.no_room(rooms)}.")
        silent = np.zeros(len(split), np.bool_) if self.unasked() is None else are_unlabelled(split)
        blocks = Blocks.of(pieces, length if training and self.packs else None, student.pad_token_id,
                           silent[pieces.documents])
        beside = None if others is None else Blocks.of(others, None, student.pad_token_id)
        collate = _Collate(blocks, silent[blocks.documents], asked, weights_in(split)[blocks.documents], beside)
        return Prepared(Positions(len(blocks)), collate, blocks.documents, blocks.lengths.tolist(),
                        packed=training and self.packs, aligned=beside is None)

    def _room(self, pieces: Pieces | None, length: int) -> privileged.Room:
        own = None if self.section is None else self.section.max_length
        wanted = self.longest if self.as_teacher and self.longest is not None else own
        return privileged.Room(pieces, length, wanted is not None and wanted <= length, self.as_teacher)

    def placed(self, labels: Tensor) -> Tensor:
        """One position to the left: transformers' models shift inside, and its labels stand at their own tokens."""
        return functional.pad(labels[:, 1:], (0, 1), value=NO_ROW)

    def _pieces(self, split: Dataset, tokenizer: Any, length: int, most: int) -> Pieces:
        """`length`: of a piece of plain text. `most`: tokens that are read at once, those before a piece among them."""
        read = self._readable(split)
        cut = _columns.values(split, CUT) if CUT in split.column_names else None
        unended = None if cut is None else [bool(cut[key]) for key in read.keys]
        if self.layout.source == "messages":
            return conversations.conversations(tokenizer, read.rows, read.keys, most, unended, skip=self._skips())
        if self.layout.source == "prompt":
            prompts, completions = ([row[index] for row in read.rows] for index in (0, 1))
            return documents.answers(tokenizer, prompts, completions, read.keys, most, unended)
        return documents.plain(tokenizer, read.rows, read.keys, length,
                               most if self.as_teacher and self.longest is not None else None)

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Texts, of whose tokens only the teacher says what follows; or prompts and conversations, which it answers."""
        return unlabelled(pool, self.layout, called, self.theirs)

    def usable(self, pool: Dataset) -> Dataset:
        read = self._readable(pool, np.ones(len(pool), np.bool_))
        if self.section is not None:
            readable.refuse_unread(self.section, "unlabelled", pool, read)
        return pool.select(read.keys) if read.broken else pool

    def beside(self, split: Dataset) -> Dataset:
        some = split.select_columns(list(dict.fromkeys(column for one in self._layouts for column in one.all)))
        talking = list(dict.fromkeys(column for one in self._layouts for column in one.columns))
        return talks.as_json(some, talking) if self.layout.source == "messages" else some

    def traces(self, split: Dataset) -> Iterable[tuple[str, ...]]:
        """Of conversations what users say: what stands around it is the same in many."""
        if self.layout.source == "messages":
            for talk in talks.read(split, self.layout.columns):
                yield (talk.said_by("user"),) if isinstance(talk, talks.Talk) else ("",)
            return
        columns = [self.layout.columns[0], *([] if self.layout.context is None else [self.layout.context])]
        yield from zip(*([text or "" for text in _columns.values(split, column)] for column in columns))

    def _skips(self) -> bool:
        return self.section is not None and self.section.broken == "skip"

    # --- writing ---

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        return exams_of(self, self.exam(), section)

    def text_metrics(self) -> tuple[str, ...]:
        """Only what is asked for: writing takes long, and perplexity is measured in any case."""
        return ()

    def unasked(self) -> str | None:
        if self.layout.source == "text":
            return ("plain text asks for nothing that could be written; give prompts and completions (data.prompt, "
                    "data.completion) or conversations (data.messages)")
        return None

    def asked(self, split: Dataset, processor: Any) -> Asked:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        if why := self.unasked():
            raise CompatibilityError(why)
        read, keys = self._readable(split, are_unlabelled(split)), list[int]()
        if self.layout.source == "messages":
            template = conversations.Template(processor)
            given, references = [], []
            for (ids, answer), key in template.each(
                    read.rows, read.keys, lambda talk, key: (template.asked(talk, key), template.answer(talk, key)),
                    skip=self._skips()):
                given.append(ids or [int(processor.eos_token_id)])
                references.append(answer)
                keys.append(key)
        else:
            ends = Ends.of(processor)
            given = _prompts.given(processor, [prompt for prompt, _ in read.rows])
            references, keys = [ends.unended(completion or "") for _, completion in read.rows], read.keys.tolist()
        # as in training: what leaves no room for an answer is left out
        length = self._length(processor)
        fits = [row for row, ids in enumerate(given) if len(ids) < length]
        if not fits:
            raise DataError(f"no prompt leaves room for an answer within {length} tokens; {self._room(None, length).more}.")
        return Asked(_prompts.left_padded(processor, [given[row] for row in fits]), np.array(keys, np.int64)[fits],
                     [references[row] for row in fits])

    def source_of(self, split: Dataset, key: int) -> str:
        row = readable.row_of(split, key, self._layout)
        if isinstance(row, talks.Talk):
            return row.lines(row.asked)
        return str(row[0] if isinstance(row, tuple) else row)

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return self._readable(split, are_unlabelled(split)).keys

    def beside_answers(self, split: Dataset) -> Dataset:
        return self.beside(split)

    def talk_of(self, split: Dataset, key: int) -> list[dict[str, str]] | None:
        row = readable.row_of(split, key, self._layout)
        return row.in_words() if isinstance(row, talks.Talk) else None

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        if self.layout.source == "messages":
            for columns in {one.columns[-1]: one.columns for one in reversed(self._layouts)}.values():
                split = talks.answered(split, columns, texts)
            return translations.with_cuts(split, cut)
        return translations.replaced(split, self.layout.columns[1], texts, cut)

    def unreasoned(self) -> str | None:
        return "conversations are sent as they are, and no reason is asked for" if self.layout.source == "messages" else None

    def reasoned(self, split: Dataset, asked: str, reasons: Sequence[str], weight: float) -> Dataset:
        return translations.reasoned(split, self.layout.columns[:2], asked, reasons, weight)

    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        return _prompts.continued(inputs, written, int(processor.pad_token_id))

    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        return str(processor.decode(list(ids), skip_special_tokens=True))

    def identity(self, processor: Any) -> str:
        return tokens.fingerprint(processor, *([processor.chat_template] if self.layout.source == "messages" else []))


@dataclass(frozen=True)
class _Collate:
    """`unlabelled`: (blocks,) whether nobody has given the texts in it. `told`: what a teacher reads in the place of each."""

    blocks: Blocks
    unlabelled: NDArray[np.bool_]
    asked: Asking
    weights: NDArray[np.float32]
    told: Blocks | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        inputs, labels = self.blocks.batch(examples)
        read, places = (inputs, labels) if self.told is None else self.told.batch(examples)
        batch = Batch(student=inputs, teacher=self.asked(read), labels=labels,
                      keys=torch.from_numpy(self.blocks.documents[list(examples)]))
        if self.told is not None:
            batch["words"] = privileged.places(labels, places)
        return with_weights(with_unlabelled(batch, self.unlabelled[list(examples)]), self.weights, examples)
