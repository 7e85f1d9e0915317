"""Causal language models: the next token of plain text, of completions after their prompts, of an assistant's turns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from stilla.errors import CompatibilityError, DataError, all_at_once, all_of
from stilla.recipe import Data, ModelSource
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.language import conversations, documents, translations
from stilla.tasks.language import prompts as _prompts
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.models import refuse_leaks, refuse_looking_ahead
from stilla.tasks.language.sections import CausalLMData, WritingEvaluate
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.vocabulary import Vocabulary, refuse_other_tokens
from stilla.tasks.language.writing import Asked, Writes
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import tokens
from stilla.tasks.text.sequences import NO_ROW, Blocks, Pieces

logger = logging.getLogger(__name__)

Source = Literal["text", "prompt", "messages"]


@dataclass(frozen=True)
class CausalLM(Vocabulary[CausalLMData], Writes):
    """The next token: of plain text, of completions after a prompt, or of what an assistant says."""

    source: Source = "text"
    columns: tuple[str, ...] = ()
    """The text's, the prompt's and the completion's, or the messages'."""

    kind: ClassVar[str] = "causal-lm"
    data_section = CausalLMData
    evaluate_section = WritingEvaluate
    heads: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    auto: ClassVar[Any] = AutoModelForCausalLM

    @classmethod
    def understand(cls, section: CausalLMData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        source, columns = attempt(problems, _columns.language, section, train) or ("text", ())
        absent = _columns.missing(columns, splits)
        if columns and not absent:
            for name, split in splits.items():
                attempt(problems, _refuse_broken, section, name, split, source, columns)
        problems += absent
        if problems:
            raise all_at_once(problems, DataError)
        return cls(section=section, source=source, columns=columns)

    @property
    def packs(self) -> bool:
        """Whether training examples share rows; what is measured never does."""
        wanted = None if self.section is None else self.section.pack
        return self.source == "text" if wanted is None else wanted

    def resolved(self, section: CausalLMData) -> CausalLMData:
        named = dict(zip({"text": ("text",), "prompt": ("prompt", "completion"), "messages": ("messages",)}[self.source],
                         (self.columns,) if self.source == "text" else self.columns))
        return section.model_copy(update={**named, "pack": self.packs})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        loaded = super().load(source, labelled=labelled)
        refuse_looking_ahead(loaded.model, source.model)
        if self.packs and self.section is not None:
            refuse_leaks(loaded.model, source.model)
        return loaded

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        both = [student] if teacher is None else [student, teacher]
        if teacher is not None:
            refuse_other_tokens(student, teacher)
        length = tokens.longest(both, self.section.max_length)
        pieces = self._pieces(split, student, length)
        if not len(pieces):
            raise DataError(f"no token can be predicted in any of the {len(split)} examples: none has two tokens, or what "
                            f"is to be learnt stands behind the first {length}; raise data.max_length.")
        blocks = Blocks.of(pieces, length if training and self.packs else None, student.pad_token_id)
        return Prepared(Positions(len(blocks)), _Collate(blocks), blocks.documents, blocks.lengths.tolist(),
                        packed=training and self.packs)

    def placed(self, labels: Tensor) -> Tensor:
        """One position to the left: transformers' models shift inside, and its labels stand at their own tokens."""
        return functional.pad(labels[:, 1:], (0, 1), value=NO_ROW)

    def _pieces(self, split: Dataset, tokenizer: Any, length: int) -> Pieces:
        columns = [_columns.values(split, column) for column in self.columns]
        keys = np.setdiff1d(np.arange(len(split)), _broken(self.source, columns))
        kept = [[column[key] for key in keys] for column in columns]
        if self.source == "text":
            return documents.plain(tokenizer, kept[0], keys, length)
        cut = _columns.values(split, CUT) if CUT in split.column_names else None
        unended = None if cut is None else [bool(cut[key]) for key in keys]
        if self.source == "prompt":
            return documents.answers(tokenizer, kept[0], kept[1], keys, length, unended)
        return conversations.conversations(tokenizer, kept[0], keys, length, unended)

    # --- writing ---

    def text_metrics(self) -> tuple[str, ...]:
        """Only what is asked for: writing takes long, and perplexity is measured in any case."""
        return ()

    def unasked(self) -> str | None:
        if self.source == "text":
            return ("plain text asks for nothing that could be written; give prompts and completions (data.prompt, "
                    "data.completion) or conversations (data.messages)")
        return None

    def asked(self, split: Dataset, processor: Any) -> Asked:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        if why := self.unasked():
            raise CompatibilityError(why)
        columns = [_columns.values(split, column) for column in self.columns]
        keys = np.setdiff1d(np.arange(len(split)), _broken(self.source, columns))
        kept = [[column[key] for key in keys] for column in columns]
        if self.source == "messages":
            template = conversations.Template(processor)
            given = [template.asked(talk, int(key)) for key, talk in zip(keys, kept[0])]
            references = [talk[conversations.last_answer(talk)]["content"] for talk in kept[0]]
        else:
            ends = Ends.of(processor)
            given, references = _prompts.given(processor, kept[0]), [ends.unended(text) for text in kept[1]]
        # as in training: what leaves no room for an answer is left out
        fits = [row for row, ids in enumerate(given) if len(ids) < tokens.longest([processor], self.section.max_length)]
        if not fits:
            raise DataError("no prompt leaves room for an answer; raise data.max_length.")
        return Asked(_prompts.left_padded(processor, [given[row] for row in fits]), keys[fits],
                     np.array([references[row] for row in fits]))

    def source_of(self, split: Dataset, key: int) -> str:
        found = _columns.values(split.select([int(key)]), self.columns[0])[0]
        if self.source == "messages":
            return _as_lines(found[: conversations.last_answer(found)])
        return str(found)

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        if self.source == "messages":
            return conversations.answered(split, self.columns[0], texts, cut)
        return translations.replaced(split, self.columns[1], texts, cut)

    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        return _prompts.continued(inputs, written, int(processor.pad_token_id))

    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        return str(processor.decode(list(ids), skip_special_tokens=True))

    def identity(self, processor: Any) -> str:
        return tokens.fingerprint(processor, *([processor.chat_template] if self.source == "messages" else []))

    def show(self, split: Dataset, key: int) -> str:
        row = split.select_columns(list(self.columns)).with_format(None)[int(key)]
        if self.source == "messages":
            return _as_lines(row[self.columns[0]])
        return " | ".join(str(row[column]) for column in self.columns)


@dataclass(frozen=True)
class _Collate:
    blocks: Blocks

    def __call__(self, examples: Sequence[int]) -> Batch:
        inputs, labels = self.blocks.batch(examples)
        return Batch(student=inputs, teacher=inputs, labels=labels,
                     keys=torch.from_numpy(self.blocks.documents[list(examples)]))


def _as_lines(talk: conversations.Talk) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in talk)


def _broken(source: Source, columns: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
    """Rows that cannot be learnt: no text, no completion, or nothing said by an assistant."""
    if source == "messages":
        (talks,) = columns
        rows = [row for row, talk in enumerate(talks) if not conversations.is_talk(talk)]
    elif source == "prompt":
        prompts, completions = columns
        rows = [row for row, (prompt, said) in enumerate(zip(prompts, completions)) if prompt is None or not said]
    else:
        rows = [row for row, text in enumerate(columns[0]) if not (text and text.strip())]
    return np.array(rows, np.int64)


_WORDS = {"text": "{} is null or empty", "prompt": "{} are null or empty",
          "messages": "{} is no list of {{role, content}} in which an assistant speaks"}


def _refuse_broken(section: Data, name: str, split: Dataset, source: Source, columns: Sequence[str]) -> None:
    broken = _broken(source, [_columns.values(split, column) for column in columns])
    if not len(broken):
        return
    named = " or ".join(repr(column) for column in columns)
    found = f"data.{name}: {_WORDS[source].format(named)} in {len(broken)} of {len(split)} examples"
    if source == "messages":
        roles = conversations.roles(_columns.values(split.select(broken[:100].tolist()), columns[0]))
        found += f" (who speaks there: {all_of([repr(role) for role in roles]) or 'nobody'})"
    if section.broken == "refuse":
        raise DataError(f"{found}: {rows_in_words(split, broken.tolist())}. Remove them, or leave them out with "
                        "data.broken: skip.")
    logger.warning("%s; left out", found)
