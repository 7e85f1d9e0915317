"""Masked language models: the words of a text that were hidden from both models alike."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ModelSource
from stilla.runtime.narrate import tracked
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared, Texts
from stilla.tasks.language.masking import Masking
from stilla.tasks.language.sections import MaskedLMData
from stilla.tasks.language.vocabulary import Asking, Vocabulary, asked_by, in_use, same_inputs, with_unlabelled
from stilla.tasks.shared import columns
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.broken import empty, refuse_empty, without_empty
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.sequences import NO_ROW

logger = logging.getLogger(__name__)

_AT_ONCE = 1000
_LOOKED_AT = 8  # of a thousand: what a tokenizer loses, it loses everywhere


@dataclass(frozen=True)
class MaskedLM(Vocabulary[MaskedLMData]):
    """The words of a text that were masked, the same ones for teacher and student."""

    column: str = ""

    kind: ClassVar[str] = "masked-lm"
    pipeline = "fill-mask"
    given = 'f"An {model.tokenizer.mask_token}."'
    data_section = MaskedLMData
    heads: ClassVar[tuple[str, ...]] = ("ForMaskedLM",)
    auto: ClassVar[Any] = AutoModelForMaskedLM

    @classmethod
    def understand(cls, section: MaskedLMData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        (column,) = attempt(problems, columns.one_text, section, train) or ("",)
        absent = columns.missing([column], splits) if column else []
        if column and not absent:
            for name, split in splits.items():
                attempt(problems, refuse_empty, section, name, split, [columns.values(split, column)], repr(column))
        problems += absent
        if problems:
            raise all_at_once(problems, DataError)
        return cls(section=section, column=column)

    def resolved(self, section: MaskedLMData) -> MaskedLMData:
        return section.model_copy(update={"text": (self.column,)})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        loaded = super().load(source, labelled=labelled)
        if loaded.processor.mask_token_id is None:
            raise CompatibilityError(f"{source.model!r}: its tokenizer has no mask token; expected that of a masked language "
                                     "model.")
        if self.section is not None and self.section.whole_words and not loaded.processor.is_fast:
            raise CompatibilityError(f"data.whole_words: {type(loaded.processor).__name__} does not say where words begin; "
                                     "set data.whole_words: false, or use a fast tokenizer.")
        return loaded

    def texts(self, split: Dataset, processor: Any) -> Texts:
        return Texts((text for text in columns.values(split, self.column) if text), None)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        both = [student] if teacher is None else [student, teacher]
        asked = same_inputs if teacher is None else asked_by(student, teacher)
        texts = columns.values(split, self.column)
        keys = np.setdiff1d(np.arange(len(split)), empty([texts]))
        length = _tokens.longest(both, self.section.max_length)
        pieces = _pieces(student, [texts[key] for key in keys], keys, length, whole_words=self.section.whole_words)
        if not len(pieces.keys):
            raise DataError(f"no word can be masked in any of the {len(split)} texts.")
        special = np.isin(np.arange(in_use(student)), student.all_special_ids)
        masking = Masking(self.section.mask, student.mask_token_id, np.flatnonzero(~special).astype(np.int32),
                          seed if training and self.section.fresh_masks else 0)
        # shared, so that the loader's processes see it change
        epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        collate = _Collate(pieces, masking, student.pad_token_id, epoch, are_unlabelled(split)[pieces.keys], asked)
        return Prepared(Positions(len(pieces.keys)), collate, pieces.keys, np.diff(pieces.starts).tolist(),
                        # what is measured is masked the same way every time
                        on_epoch=collate.set_epoch if training and self.section.fresh_masks else None)


    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Texts whose masked words only the teacher answers: what stood there is not learnt."""
        return bound(pool, (self.column,), called, columns.is_text, "text", partial(usual_texts, count=1))

    def usable(self, pool: Dataset) -> Dataset:
        return without_empty(self.section, "unlabelled", pool, [columns.values(pool, self.column)], repr(self.column))

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns([self.column])

    def traces(self, split: Dataset) -> Iterable[tuple[str]]:
        return ((text or "",) for text in columns.values(split, self.column))


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Texts, long ones in several pieces: `ids[starts[i] : starts[i + 1]]` with special tokens at both ends.

    `words`: the word that a token is a part of, -1 for special ones. `keys`: each piece's text; `parts`: which of its
    pieces it is.
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    starts: NDArray[np.int64]
    keys: NDArray[np.int64]

    @property
    def parts(self) -> NDArray[np.int64]:
        """(pieces,): 0 for a text's first piece."""
        begins = np.flatnonzero(np.diff(self.keys, prepend=-1))
        return np.arange(len(self.keys)) - np.repeat(begins, np.diff(begins, append=len(self.keys)))


def _pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], keys: NDArray[np.int64], length: int, *, whole_words: bool
) -> _Pieces:
    ids, words, found = [], [], []
    for key, tokens, parts in _encoded(tokenizer, texts, keys, length):
        if any(part >= 0 for part in parts):
            ids.append(np.array(tokens, np.int32))
            numbered = np.array(parts, np.int32)
            words.append(numbered if whole_words else np.where(numbered >= 0, np.arange(len(numbered)), -1).astype(np.int32))
            found.append(key)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    empty = np.zeros(0, np.int32)
    return _Pieces(np.concatenate(ids) if ids else empty, np.concatenate(words) if ids else empty, starts,
                   np.array(found, np.int64))


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], keys: NDArray[np.int64], length: int
) -> Iterator[tuple[int, list[int], list[int]]]:
    """(key, tokens, word of each token) of every piece of at most `length` tokens."""
    for start in tracked(range(0, len(texts), _AT_ONCE), "tokenising"):
        part = list(texts[start : start + _AT_ONCE])
        if not tokenizer.is_fast:
            for key, text in zip(keys[start:], part):
                for tokens, special in _cut(tokenizer, text, length):
                    yield int(key), tokens, [-1 if flag else place for place, flag in enumerate(special)]
            continue
        encoded = tokenizer(part, truncation=True, max_length=length, return_overflowing_tokens=True,
                            return_special_tokens_mask=True, verbose=False)
        _refuse_lost(tokenizer, part, encoded, length)
        for row, text in enumerate(encoded["overflow_to_sample_mapping"]):
            special = encoded["special_tokens_mask"][row]
            parts = [-1 if flag or word is None else word for word, flag in zip(encoded.word_ids(row), special)]
            yield int(keys[start + text]), encoded["input_ids"][row], parts


def _cut(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> Iterator[tuple[list[int], list[int]]]:
    """(tokens, which are special) of every piece, by a tokenizer in Python, which cuts nothing into pieces itself."""
    room = length - tokenizer.num_special_tokens_to_add()
    if room < 1:
        raise DataError(f"data.max_length: got {length}; expected more than the {length - room} special tokens of every "
                        f"piece")
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    for start in range(0, len(ids), room):
        tokens = tokenizer.build_inputs_with_special_tokens(ids[start : start + room])
        if len(ids) <= room and tokens != tokenizer(text, truncation=False, verbose=False)["input_ids"]:
            raise CompatibilityError(f"{type(tokenizer).__name__} does not put the same special tokens around a text and "
                                     f"around "
                                     "its tokens, so that long texts cannot be cut into pieces; use a fast tokenizer")
        yield tokens, tokenizer.get_special_tokens_mask(tokens, already_has_special_tokens=True)


def _refuse_lost(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], encoded: Any, length: int) -> None:
    """Look at a few long texts whether all their tokens are in their pieces: not every tokenizer gives back what overflows.

    Raises:
        CompatibilityError: they are not.
    """
    kept, full = Counter[int](), dict[int, None]()
    pieces = zip(encoded["overflow_to_sample_mapping"], encoded["input_ids"], encoded["special_tokens_mask"])
    for text, ids, special in pieces:
        kept[text] += len(ids) - sum(special)
        if len(ids) >= length:
            full[text] = None
    for text in list(full)[:_LOOKED_AT]:
        whole = tokenizer(texts[text], truncation=False, return_special_tokens_mask=True, verbose=False)
        there = len(whole["input_ids"]) - sum(whole["special_tokens_mask"])
        if kept[text] != there:
            raise CompatibilityError(f"{type(tokenizer).__name__} loses tokens where it cuts a text into pieces: of "
                                     f"{there} it "
                                     f"gives {kept[text]}. Cut the texts beforehand to fewer than data.max_length ({length}) "
                                     "tokens, or repair its tokenizer.json")


@dataclass(frozen=True, eq=False)
class _Collate:
    pieces: _Pieces
    masking: Masking
    pad: int
    epoch: Tensor
    unlabelled: NDArray[np.bool_]
    asked: Asking

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, examples: Sequence[int]) -> Batch:
        starts = self.pieces.starts
        width = max(int(starts[one + 1] - starts[one]) for one in examples)
        ids = np.full((len(examples), width), self.pad, np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, NO_ROW)
        for row, one in enumerate(examples):
            here = slice(starts[one], starts[one + 1])
            length = int(starts[one + 1] - starts[one])
            ids[row, :length], labels[row, :length] = self.masking(
                self.pieces.ids[here], self.pieces.words[here], epoch=int(self.epoch),
                piece=(int(self.pieces.keys[one]), int(self.pieces.parts[one])))
            mask[row, :length] = 1
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        batch = Batch(student=inputs, teacher=self.asked(inputs), labels=torch.from_numpy(labels),
                      keys=torch.from_numpy(self.pieces.keys[list(examples)]))
        return with_unlabelled(batch, self.unlabelled[list(examples)])
