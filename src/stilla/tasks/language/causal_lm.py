"""Causal language models: the next token of plain text, of completions after their prompts, of an assistant's turns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from stilla.errors import CompatibilityError, DataError, all_at_once, all_of, one_of
from stilla.recipe import Evaluate, ModelSource
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.language import conversations, documents, talks, translations
from stilla.tasks.language import prompts as _prompts
from stilla.tasks.language.columns import Layout, layout, unlabelled
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.models import refuse_leaks, refuse_looking_ahead
from stilla.tasks.language.sections import CausalLMData, WritingEvaluate
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.vocabulary import Asking, Vocabulary, asked_by, same_inputs, with_unlabelled
from stilla.tasks.language.weighed import weights_in, with_weights
from stilla.tasks.language.writing import Asked, Writes, exams_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import tokens
from stilla.tasks.text.sequences import NO_ROW, Blocks, Pieces

logger = logging.getLogger(__name__)

@dataclass(frozen=True)
class CausalLM(Vocabulary[CausalLMData], Writes):
    """The next token: of plain text, of completions after a prompt, or of what an assistant says."""

    layout: Layout = field(default_factory=Layout)
    """Which columns a row is made of, and what it then is."""

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
                attempt(problems, _refuse_broken, section, name, split, found)
            problems += absent
        if problems or found is None:
            raise all_at_once(problems, DataError)
        if found.context is not None:
            logger.warning("data: %r and %r are written as one prompt in Alpaca's words (docs/language-models.md); the "
                           "student has to be asked in them too", found.columns[0], found.context)
        return cls(section=section, layout=found)

    @property
    def packs(self) -> bool:
        """Whether training examples share rows; what is measured never does."""
        wanted = None if self.section is None else self.section.pack
        return self.layout.source == "text" if wanted is None else wanted

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
        read = _read(split, self.layout)
        if self.layout.source == "text":
            return Texts(read.rows, None)
        wanted = None if self.section is None else self.section.max_length
        length = tokens.longest([processor], wanted)
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
        both = [student] if teacher is None else [student, teacher]
        asked = same_inputs if teacher is None else asked_by(student, teacher)
        length = tokens.longest(both, self.section.max_length)
        pieces = self._pieces(split, student, length)
        if not len(pieces):
            raise DataError(f"no token can be predicted in any of the {len(split)} examples: none has two tokens, or what "
                            f"is to be learnt stands behind the first {length}; raise data.max_length.")
        silent = np.zeros(len(split), np.bool_) if self.unasked() is None else are_unlabelled(split)
        blocks = Blocks.of(pieces, length if training and self.packs else None, student.pad_token_id,
                           silent[pieces.documents])
        collate = _Collate(blocks, silent[blocks.documents], asked, weights_in(split)[blocks.documents])
        return Prepared(Positions(len(blocks)), collate, blocks.documents,
                        blocks.lengths.tolist(), packed=training and self.packs)

    def placed(self, labels: Tensor) -> Tensor:
        """One position to the left: transformers' models shift inside, and its labels stand at their own tokens."""
        return functional.pad(labels[:, 1:], (0, 1), value=NO_ROW)

    def _pieces(self, split: Dataset, tokenizer: Any, length: int) -> Pieces:
        read = _read(split, self.layout)
        cut = _columns.values(split, CUT) if CUT in split.column_names else None
        unended = None if cut is None else [bool(cut[key]) for key in read.keys]
        if self.layout.source == "messages":
            return conversations.conversations(tokenizer, read.rows, read.keys, length, unended, skip=self._skips())
        if self.layout.source == "prompt":
            prompts, completions = ([row[index] for row in read.rows] for index in (0, 1))
            return documents.answers(tokenizer, prompts, completions, read.keys, length, unended)
        return documents.plain(tokenizer, read.rows, read.keys, length)

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Texts, of whose tokens only the teacher says what follows; or prompts and conversations, which it answers."""
        return unlabelled(pool, self.layout, called)

    def usable(self, pool: Dataset) -> Dataset:
        read = _read(pool, self.layout, np.ones(len(pool), np.bool_))
        if self.section is not None:
            _refuse_unread(self.section, "unlabelled", pool, self.layout, read)
        return pool.select(read.keys) if read.broken else pool

    def beside(self, split: Dataset) -> Dataset:
        some = split.select_columns(list(self.layout.all))
        return talks.as_json(some, self.layout.columns) if self.layout.source == "messages" else some

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
        read, keys = _read(split, self.layout, are_unlabelled(split)), list[int]()
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
        fits = [row for row, ids in enumerate(given) if len(ids) < tokens.longest([processor], self.section.max_length)]
        if not fits:
            raise DataError("no prompt leaves room for an answer; raise data.max_length.")
        return Asked(_prompts.left_padded(processor, [given[row] for row in fits]), np.array(keys, np.int64)[fits],
                     [references[row] for row in fits])

    def source_of(self, split: Dataset, key: int) -> str:
        row = _row(split, key, self.layout)
        if isinstance(row, talks.Talk):
            return row.lines(row.asked)
        return str(row[0] if isinstance(row, tuple) else row)

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return _read(split, self.layout, are_unlabelled(split)).keys

    def beside_answers(self, split: Dataset) -> Dataset:
        return self.beside(split)

    def talk_of(self, split: Dataset, key: int) -> list[dict[str, str]] | None:
        row = _row(split, key, self.layout)
        return row.in_words() if isinstance(row, talks.Talk) else None

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        if self.layout.source == "messages":
            return translations.with_cuts(talks.answered(split, self.layout.columns, texts), cut)
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
    """`unlabelled`: (blocks,) whether nobody has given the texts in it."""

    blocks: Blocks
    unlabelled: NDArray[np.bool_]
    asked: Asking
    weights: NDArray[np.float32]

    def __call__(self, examples: Sequence[int]) -> Batch:
        inputs, labels = self.blocks.batch(examples)
        batch = Batch(student=inputs, teacher=self.asked(inputs), labels=labels,
                      keys=torch.from_numpy(self.blocks.documents[list(examples)]))
        return with_weights(with_unlabelled(batch, self.unlabelled[list(examples)]), self.weights, examples)


@dataclass(frozen=True)
class _Read:
    """What can be learnt of a split: conversations, prompts with completions, or texts; the rows' numbers; and what cannot,
    by the reason."""

    rows: list[Any]
    keys: NDArray[np.int64]
    broken: Mapping[str, list[int]]


def _read(split: Dataset, layout: Layout, unanswered: NDArray[np.bool_] | None = None) -> _Read:
    """`unanswered`: the rows to which an answer is only asked for."""
    rows = _rows(split, layout)
    broken: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if why := _why_not(row, unanswered=unanswered is not None and bool(unanswered[number])):
            broken.setdefault(why, []).append(number)
    keys = np.setdiff1d(np.arange(len(rows)), [number for numbers in broken.values() for number in numbers])
    return _Read([rows[key] for key in keys], keys.astype(np.int64), broken)


def _rows(split: Dataset, layout: Layout) -> list[Any]:
    if layout.source == "messages":
        return list(talks.read(split, layout.columns, layout.tools))
    columns = [_columns.values(split, column) for column in layout.columns]
    if layout.source == "text":
        return columns[0]
    prompts, completions = columns
    if layout.context is not None:
        contexts = _columns.values(split, layout.context)
        prompts = [None if one is None else _prompts.alpaca(one, more) for one, more in zip(prompts, contexts)]
    return list(zip(prompts, completions))


def _row(split: Dataset, key: int, layout: Layout) -> Any:
    return _rows(split.select([int(key)]), layout)[0]


def _why_not(row: Any, *, unanswered: bool = False) -> str | None:
    """Why a row cannot be learnt, or be asked where it is `unanswered`, after the names of its columns."""
    if isinstance(row, talks.UnreadableError):
        return str(row)
    if isinstance(row, tuple):
        return "are null or empty" if row[0] is None or not (row[1] or unanswered) else None
    return "is null or empty" if not isinstance(row, talks.Talk) and not (row and row.strip()) else None


def _refuse_broken(section: CausalLMData, name: str, split: Dataset, layout: Layout) -> None:
    _refuse_unread(section, name, split, layout, _read(split, layout))


def _refuse_unread(section: CausalLMData, name: str, split: Dataset, layout: Layout, read: _Read) -> None:
    named = one_of([repr(column) for column in layout.columns])
    problems: list[str] = []
    for why, rows in read.broken.items():
        found = f"data.{name}: {named} {why} in {len(rows)} of {len(split)} examples"
        if layout.source == "messages":
            found += f" (who speaks there: {_said(talks.roles(split, layout.columns, rows[:100]))})"
        attempt(problems, refuse_or_leave_out, section, found, rows_in_words(split, rows))
    if problems:
        raise all_at_once(problems, DataError)


def _said(roles: Sequence[str]) -> str:
    return all_of([repr(role) for role in roles]) or "nobody"
