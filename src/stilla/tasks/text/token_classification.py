"""Token classification: every word of a text with its tag: parts of speech, entities."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.models.configs import write
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Prepared, Segment, Task, Texts, content
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.imported import ImportedModel, check_answers
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.labels import Problem
from stilla.tasks.shared.privileged import column_of_teacher
from stilla.tasks.text import around, schemes, tag_data, tag_numbers, tag_rows
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.around import Around
from stilla.tasks.text.numbering import numbering
from stilla.tasks.text.schemes import Scheme
from stilla.tasks.text.sections import TokenClassificationData
from stilla.tasks.text.tag_data import Found
from stilla.tasks.text.tag_exam import TagExam
from stilla.tasks.text.tagged import Reading, Tagged, usable
from stilla.tasks.text.usage import TAGGING
from stilla.tasks.text.windows import Placed, Window, placed, refuse_slow, windows
from stilla.tasks.text.words import Words

logger = logging.getLogger(__name__)

HOW = "tagging"
"""Where a model's config says how its words are read: in windows of what length, at which token, and what a word is."""


@dataclass(frozen=True)
class TokenClassification(Task[TokenClassificationData]):
    """Words with a tag each: parts of speech, or entities.

    A row is a word, at the first of its tokens (or the last, `data.answers`): so models with different tokenizers have the
    same rows. Long examples are read in windows, which both models share.
    """

    problem: Problem
    """The tags in the models' order."""
    scheme: Scheme | None = None
    """How the models' tags say entities; None where each is its word's own."""
    found: Found | None = None
    """How the data are read; None, as the section, for a model whose batches a person makes."""
    section: TokenClassificationData | None = None
    theirs: str = ""
    """The column in which teachers read the same words with more around them; empty: their students'."""
    longest: int | None = None
    """How many tokens they read at once, where those are more."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and reads that."""

    kind: ClassVar[str] = "token-classification"
    usage = TAGGING
    data_section = TokenClassificationData
    heads: ClassVar[tuple[str, ...]] = ("ForTokenClassification",)
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "words")
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))

    @classmethod
    def understand(cls, section: TokenClassificationData, splits: Mapping[str, Dataset]) -> Self:
        found = tag_data.understand(section, splits)
        problem = Problem("class", (found.reading.said,), found.names, found.names)
        return cls(problem, "iob2" if found.types else None, found, section)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        if config is None or not config.id2label:
            raise CompatibilityError(f"{type(model).__name__} does not say its labels: expected config.id2label.")
        names = names_of(config) or tuple(config.id2label[index] for index in sorted(config.id2label))
        return cls(Problem("class", (), names, names), schemes.of_names(names))

    def resolved(self, section: TokenClassificationData) -> TokenClassificationData:
        reading = self._reading()
        if reading.form == "spans":
            return section.model_copy(update={"text": reading.words, "spans": reading.said})
        if reading.form == "pieces":
            ends = "last" if reading.last_too else "behind"
            return section.model_copy(update={"tokens": reading.words, "spans": reading.said, "span_ends": ends})
        return section.model_copy(update={"tokens": reading.words, "tags": reading.said, "scheme": reading.scheme or "none"})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """The document, in which the words of an example stand in their order, and once."""
        reading = self._reading()
        of_text = reading.form == "spans"
        found = column_of_teacher(
            columns, "text" if of_text else "tokens", reading.words, splits, (reading.said,),
            fits=_columns.is_text if of_text else tag_data.holds_words, what="text" if of_text else "lists of words")
        task, problems = replace(self, theirs=found), list[str]()
        for name, split in splits.items() if found else ():
            _, wrong = task._around({row: one.words for row, one in usable(self._section(), reading, split).items()}, split)
            for why, rows in wrong.items():
                attempt(problems, refuse_or_leave_out, self._section(),
                        f"data.{name}: {why}, in {len(rows)} of {len(split)} examples", rows_in_words(split, rows))
        if problems:
            raise all_at_once(problems, DataError)
        return task

    def taught_at_length(self, length: int) -> Self:
        """More around the words of its students' windows."""
        own = self._section().max_length
        if own is not None and length < own:
            raise DataError(f"teacher.data.max_length: got {length}, and students read up to {own} tokens at once "
                            "(data.max_length), about whose words the teacher is asked. Expected more")
        return self if length == own else replace(self, longest=length)

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self._told else self

    @property
    def _told(self) -> bool:
        return bool(self.theirs) or self.longest is not None

    def _around(self, own: Mapping[int, Words], split: Dataset) -> tuple[dict[int, Around], dict[str, list[int]]]:
        if not self.theirs:
            return {row: Around(words) for row, words in own.items()}, {}
        return around.found(own, replace(self._reading(), words=self.theirs).worded(split), self.theirs)

    def _usable(self, split: Dataset) -> tuple[dict[int, Tagged], list[Around]]:
        """The examples that both models can read, and what teachers read of them."""
        known = usable(self._section(), self._reading(), split)
        there, wrong = self._around({row: one.words for row, one in known.items()}, split)
        if wrong and self._section().broken == "refuse":
            raise all_at_once([f"data: {why}: {rows_in_words(split, rows)}." for why, rows in wrong.items()], DataError)
        if not there:
            raise DataError(f"there is no example left: {self.theirs!r} holds the words of none of {len(split)}.")
        return {row: known[row] for row in there}, list(there.values())

    def adapted_to(self, teacher: Loaded) -> Self:
        """With the teacher's tags: in its order, and its scheme, into which entities are written exactly."""
        config: Any = teacher.model.config
        theirs = names_of(config)
        if self.scheme is None or theirs is None or self.found is None:
            return replace(self, problem=adapted(self.problem, config, teacher.source))
        scheme = schemes.of_names(theirs)
        if scheme is None and "O" in theirs and set(self.found.types) <= set(theirs):
            scheme = "io"
        tag_numbers.refuse_other(self.found, theirs, scheme, teacher.source)
        if scheme == "bioes":
            logger.warning("%s answers in BIOES, and so will its student: transformers' own pipeline reads B- and I- only, "
                           "and cuts such entities elsewhere", teacher.source)
        return replace(self, problem=replace(self.problem, names=theirs, raw=theirs), scheme=scheme)

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model = loading.classifier(source, self.problem, AutoModelForTokenClassification, labelled=labelled, axes=3)
        tokenizer = _tokens.tokenizer_for(source, model)
        refuse_slow(tokenizer, source.model)
        if isinstance(model, ImportedModel):
            tokens, _ = _tokens.tokenise(tokenizer, [["a b", "a"]], max_length=8)
            check_answers(model, tokens.batch([0, 1]), source.model)
        return Loaded(model, tokenizer, source.model)

    def inscribe(self, model: nn.Module, processor: Any, teacher: Any | None) -> None:
        if self.section is None:
            return
        others = [] if teacher is None or self._told else [teacher]  # who reads something else cuts it alone
        length = _tokens.readable([processor, *others], self.section.max_length)
        write(model, HOW, {"length": length, "overlap": self.section.overlap, "answers": self.section.answers,
                           "words": self._reading().pattern})

    def texts(self, split: Dataset, processor: Any) -> Texts:
        return Texts((words.text for words in self._reading().worded(split) if words is not None), None)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        section = self._section()
        known, read = self._usable(split)
        examples = [one.words for one in known.values()]
        both = [student] if teacher is None else [student, teacher]
        length = _tokens.longest(both, section.max_length)
        # in training, a teacher of the same rules is asked about the very pieces that the student reads
        wider = teacher is not None and self._told and not self.as_teacher
        told = numbering(student, teacher) if training and teacher is not None and not wider else None
        same = teacher is None or told is not None or _tokens.same(student, teacher)
        cut = windows(examples, [student] if same else both, length, section.overlap)
        ours = self._placed(student, examples, read, cut, length)
        theirs = ours if same and not wider else (self.of_teacher() if wider else self)._placed(
            teacher, examples, read, cut, length)
        self._tell(ours, theirs, len(cut), len(examples), length)
        numbers = [tag_numbers.numbered(one, self.problem, self.scheme) for one in known.values()]
        labels = [numbers[one.example][one.answers : one.until] for one in cut]
        keys = np.array(list(known), np.int64)[[one.example for one in cut]]
        return Prepared(
            examples=Positions(len(cut)), collate=tag_rows.Collate(ours, theirs, labels, keys, told), keys=keys,
            lengths=ours.tokens.lengths.tolist(), references=labels, aligned=same and not wider)

    def _placed(
        self, tokenizer: Any, examples: Sequence[Words], read: Sequence[Around], cut: Sequence[Window], length: int
    ) -> Placed:
        """Windows as this task's models read them."""
        section = self._section()
        if not self.as_teacher:
            return placed(tokenizer, examples, cut, length, section.answers)
        most = _tokens.longest([tokenizer], self.longest or section.max_length)
        return around.placed_around(tokenizer, read, cut, most, section.answers)

    def _tell(self, ours: Placed, theirs: Placed, cut: int, examples: int, length: int) -> None:
        if cut > examples:
            logger.info("%d examples are read in %d windows of at most %d tokens", examples, cut, length)
        unseen = int(((ours.places < 0) | (theirs.places < 0)).sum())
        if unseen:
            logger.warning("%d of %d words have no token: they are not learnt, and nothing is said of them", unseen,
                           len(ours.places))

    # --- examples without labels ---

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Lists of words, or texts; where the labelled data have lists, texts are cut as `data.words` says."""
        reading, wanted = self._reading(), (self._reading().words,)
        labels = (reading.said,)
        if self.theirs:  # which of two is the teacher's, nobody guesses
            fits, what = (_columns.is_text, "text") if reading.form == "spans" else (tag_data.holds_words, "lists of words")
            return bound(pool, (*wanted, self.theirs), called, fits, what, lambda pool, _: None, labels)
        if reading.form == "spans":
            return bound(pool, wanted, called, _columns.is_text, "text", partial(usual_texts, count=1), labels)
        lists = [name for name in pool.column_names if tag_data.holds_words(pool.features[name])]
        named = called.get(reading.words, reading.words)
        if named in lists or (named not in pool.column_names and lists):
            return bound(pool, wanted, called, tag_data.holds_words, "lists of words", tag_data.usual_words, labels)
        texts = bound(pool, wanted, called, _columns.is_text, "text", partial(usual_texts, count=1), labels)
        cut = [Words.split(text or "", reading.splitting).listed() for text in _columns.values(texts, reading.words)]
        return Dataset(pa.table({reading.words: pa.array(cut, pa.list_(pa.string()))}))

    def usable(self, pool: Dataset) -> Dataset:
        own = {row: words for row, words in enumerate(self._reading().worded(pool)) if words is not None}
        there, wrong = self._around(own, pool)
        if len(own) < len(pool):
            wrong[f"{self._reading().words!r} has no words"] = [row for row in range(len(pool)) if row not in own]
        for why, rows in wrong.items():
            refuse_or_leave_out(self._section(), f"data.unlabelled: {why} in {len(rows)} of {len(pool)} examples",
                                rows_in_words(pool, rows))
        return pool.select(list(there)) if wrong else pool

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns([self._reading().words, *([self.theirs] if self.theirs else []), self._reading().said])

    @property
    def text_column(self) -> str | None:
        return None if self.theirs else self._reading().words

    def traces(self, split: Dataset) -> Iterable[tuple[str]]:
        return (("" if words is None else words.text,) for words in self._reading().worded(split))

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        example, _ = tag_rows.rows(batch, Side.STUDENT)
        labels, mask = tag_rows.labels_of(batch), self.mask(batch, Side.STUDENT)
        return {"rows": len(example), "labelled": 0 if labels is None else int((labels != NO_ANSWER).sum()),
                "words": len(example), "tokens": int(mask.sum()), "examples": len(mask)}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        return Signals(logits=Dense(self.outputs(outputs)[tag_rows.rows(batch, side)]), labels=tag_rows.labels_of(batch))

    def attributed(self, logits: Tensor, batch: Batch) -> Tensor:
        """The tags of all words that have one beside O; where no word of a text has, all of its words'."""
        likeliest = logits.argmax(-1)
        said = torch.tensor([name != schemes.OUT[0] for name in self.problem.names], device=logits.device)[likeliest]
        example, _ = tag_rows.rows(batch, Side.TEACHER)
        some = torch.zeros(len(self.mask(batch, Side.TEACHER)), dtype=torch.bool, device=logits.device)
        some[example[said]] = True
        return torch.where(said | ~some[example], likeliest, -1)

    def attributed_names(self, classes: Tensor, batch: Batch, split: Dataset) -> list[str]:
        example, _ = tag_rows.rows(batch, Side.TEACHER)
        windows = range(len(self.mask(batch, Side.TEACHER)))
        said = [dict.fromkeys(classes[(example == one) & (classes >= 0)].tolist()) for one in windows]
        return [", ".join(self.problem.names[one] for one in own) for own in said]

    def segments(self, batch: Batch) -> list[Segment]:
        """Every window, with which of its tokens answer."""
        example, position = (one.cpu() for one in tag_rows.rows(batch, Side.TEACHER))
        mask = self.mask(batch, Side.TEACHER).cpu()
        ends = np.cumsum([0, *np.bincount(example.numpy(), minlength=len(mask))]).tolist()
        found = []
        for one, there in enumerate(mask):
            rows = slice(ends[one], ends[one + 1])
            first = int(there.int().argmax())  # padding may stand before the text
            places = (position[rows] - first).numpy().astype(np.int32)
            found.append(Segment(content(batch.teacher, one) + places.tobytes(), rows, one))
        return found

    def exam(self) -> TagExam:
        return TagExam(self.problem.names, self.scheme, self._words)

    def class_names(self) -> tuple[str, ...]:
        return self.problem.names

    def row_classes(self) -> int:
        return len(self.problem.names)

    def numbers_of(self, length: int) -> int:
        return length * self.row_classes()

    def _words(self, split: Dataset, key: int) -> Words:
        (words,) = self._reading().worded(split.select([int(key)]))
        assert words is not None  # it has been answered
        return words

    def _section(self) -> TokenClassificationData:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.section

    def _reading(self) -> Reading:
        self._section()
        assert self.found is not None
        return self.found.reading
