"""Question answering: the piece of a passage that answers a question, or that there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForQuestionAnswering

from stilla.errors import CompatibilityError, DataError
from stilla.models.configs import says, without, write
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Side, Signals
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.base import Loaded, Prepared, Segment, Task, Texts, content
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.broken import refuse_or_leave_out, without_empty
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.imported import ImportedModel, check_answers
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.shared.labels import Problem
from stilla.tasks.shared.privileged import column_of_teacher
from stilla.tasks.text import asked as _asked
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.across import carried
from stilla.tasks.text.passages import Collate, by_place, mask_of, passages
from stilla.tasks.text.qa_exam import AnswerExam
from stilla.tasks.text.sections import QuestionAnsweringData
from stilla.tasks.text.usage import ANSWERING
from stilla.tasks.text.windows import refuse_slow

logger = logging.getLogger(__name__)

HOW = "answering"
"""Where a model's config says how its passages are read: in windows of what length, and how long an answer may be."""
_ENDS = ("start", "end")
THRESHOLD = "no_answer_threshold"
"""Where a model's config says by how much no answer has to score higher than the best piece."""


@dataclass(frozen=True)
class QuestionAnswering(Task[QuestionAnsweringData]):
    """The piece of a passage that answers a question, or that none does.

    Every window of a passage has two rows: at which token the answer starts, and at which it ends. Their classes are the
    places in the window, as many in every batch; where no answer can be, both models' logits are the same floor. What a
    teacher with other tokens says of its own places is carried to the student's (`across`). The place of
    the token that stands for the whole text (CLS) says that the window holds no answer.
    """

    section: QuestionAnsweringData
    maybe_none: bool
    """Whether the data have questions that their passages do not answer."""
    teachers: str = ""
    """The column with what teachers are asked about the same passages; empty: the same."""

    kind: ClassVar[str] = "question-answering"
    usage = ANSWERING
    data_section = QuestionAnsweringData
    heads: ClassVar[tuple[str, ...]] = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")
    places: ClassVar[bool] = True
    answer: ClassVar[str] = "start_end_logits"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))

    @classmethod
    def understand(cls, section: QuestionAnsweringData, splits: Mapping[str, Dataset]) -> Self:
        known = _asked.check(section, splits)
        if not any(one.answers for one in known.get("train", next(iter(known.values()))).values()):
            raise DataError(f"data.train: no question has an answer in {section.answers!r}: there is nothing to learn.")
        return cls(section, any(not one.answers for split in known.values() for one in split.values()))

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("question-answering: which positions of a batch are the passage's, and what stands there, "
                                 "is known only of data that Stilla reads itself. Use a recipe (`stilla.distill`).")

    def resolved(self, section: QuestionAnsweringData) -> QuestionAnsweringData:
        return section

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """Other questions about the same passages: in another language, in other words, with what helps to answer them."""
        if "context" in columns:
            raise DataError("teacher.data.context: the answers are places in the passage that the student reads, and another "
                            "passage has others. Give the teacher other questions (teacher.data: {question: ...}), or let a "
                            "student write what it answers (task: seq2seq).")
        found = column_of_teacher(columns, "question", self.section.question, splits, (self.section.answers,))
        return replace(self, teachers=found)

    def of_teacher(self) -> Self:
        if not self.teachers:
            return self
        return replace(self, section=self.section.model_copy(update={"question": self.teachers}), teachers="")

    def adapted_to(self, teacher: Loaded) -> Self:
        return self

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        problem = Problem("class", (self.section.answers,), _ENDS, _ENDS)
        model = loading.classifier(source, problem, AutoModelForQuestionAnswering, labelled=labelled, axes=3)
        tokenizer = _tokens.tokenizer_for(source, model)
        refuse_slow(tokenizer, source.model)
        if isinstance(model, ImportedModel):
            tokens, _ = _tokens.tokenise(tokenizer, [["a b", "a"], ["c", "d e"]], max_length=16)
            check_answers(model, tokens.batch([0, 1]), source.model)
        return Loaded(model, tokenizer, source.model)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        section = self.section
        known = _asked.usable(section, split)
        both = [student] if teacher is None or _tokens.same(student, teacher) else [student, teacher]
        length = _tokens.longest(both, section.max_length)
        rows, questions = np.array(list(known), np.int64), list(known.values())
        theirs = _asked.asked_in(self.teachers, split, known) if self.teachers and teacher is not None else None
        read = passages(both, questions, length, section.overlap, section.longest_answer, theirs)
        for some, why in ((read.full, f"the question leaves no room for an answer of {section.longest_answer} tokens "
                                      "(data.longest_answer)"),
                          (read.apart, "teacher and student part the passage into tokens that have no border in common")):
            if some:
                refuse_or_leave_out(section, f"data: {why} in windows of {length} (data.max_length), in {len(some)} of "
                                    f"{len(questions)} examples", rows_in_words(split, rows[some].tolist()))
        cut = read.student
        if not len(cut.owners):
            raise DataError("there is no question left that fits into a window with its passage (data.max_length).")
        if len(cut.owners) > len(questions):
            logger.info("%d questions are read in %d windows of at most %d tokens", len(questions), len(cut.owners), length)
        keys = rows[cut.owners]
        return Prepared(
            examples=Positions(len(keys)), collate=Collate(read, keys, section.max_length), keys=keys,
            lengths=cut.tokens.lengths.tolist(), references=[questions[one] for one in cut.owners],
            aligned=read.across is None)

    def inscribe(self, model: nn.Module, processor: Any, teacher: Any | None) -> None:
        both = [processor] if teacher is None or _tokens.same(processor, teacher) else [processor, teacher]
        write(model, HOW, {"length": _tokens.readable(both, self.section.max_length), "overlap": self.section.overlap,
                           "longest": self.section.longest_answer})

    def texts(self, split: Dataset, processor: Any) -> Texts:
        asked = _asked.usable(self.section, split).values()
        return Texts((text for one in asked for text in (one.question, one.context)), None)

    # --- examples without labels ---

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        usual = _usual_questions if len(self._read) == 2 else _nobody_knows
        return bound(pool, self._read, called, _columns.is_text, "text", usual, (self.section.answers,))

    def usable(self, pool: Dataset) -> Dataset:
        texts = [_columns.values(pool, column) for column in self._read]
        return without_empty(self.section, "unlabelled", pool, texts, _columns.named(self._read))

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns([*self._read, self.section.answers])

    def traces(self, split: Dataset) -> Iterable[tuple[str, ...]]:
        return zip(*([text or "" for text in _columns.values(split, column)] for column in self._read))

    @property
    def _read(self) -> tuple[str, ...]:
        return self.section.context, self.section.question, *([self.teachers] if self.teachers else [])

    # --- two models ---

    def alike(self, student: Any, teacher: Any) -> bool:
        return _tokens.same(student, teacher)

    def comparable(self, student: Any, teacher: Any) -> bool:
        return True

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        labels, mask = batch.labels, self.mask(batch, Side.STUDENT)
        return {"rows": 2 * len(mask), "labelled": 0 if labels is None else int((labels != NO_ANSWER).sum()),
                "tokens": int(mask.sum()), "examples": len(mask)}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        return mask_of(batch, side)

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        labels = batch.labels
        return Signals(logits=Dense(by_place(self.outputs(outputs), batch["places"][side.value]).flatten(0, 1)),
                       labels=None if labels is None else labels.flatten())

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """The teacher's rows over the student's places, where its tokens are others."""
        across = batch.get("across")
        if across is None or teacher.logits is None:
            return student, teacher
        if not isinstance(teacher.logits, Dense):
            raise CompatibilityError("question-answering: teacher and student have different tokenizers, so that all of the "
                                     "teacher's logits have to be known. Set cache: {form: dense}, or cache: none")
        logits = carried(teacher.logits.logits.unflatten(0, (-1, 2)), across["to"], across["cells"])
        return student, replace(teacher, logits=Dense(logits.flatten(0, 1)))

    def alone(self, student: Signals, batch: Batch) -> Signals:
        return student

    def attributed(self, logits: Tensor, batch: Batch) -> Tensor:
        """Start and end of the best piece of each window, or of no answer."""
        starts, ends = logits.unflatten(0, (-1, 2)).unbind(1)
        there = batch["places"][Side.TEACHER.value].to(logits.device) >= 0
        real = there & (batch["characters"][Side.TEACHER.value].to(logits.device)[..., 1] > 0)
        order = torch.arange(real.shape[1], device=logits.device)
        more = order - order[:, None]
        ok = real[:, :, None] & real[:, None, :] & (more >= 0) & (more < self.section.longest_answer)
        none = there & ~real & (self.maybe_none | ~real.any(1, keepdim=True))
        ok |= none[:, :, None] & none[:, None, :] & (more == 0)
        scores = (starts[:, :, None] + ends[:, None, :]).masked_fill(~ok, -torch.inf)
        best = scores.flatten(1).argmax(1)
        return torch.stack([best // len(order), best % len(order)], 1).flatten()

    def attributed_names(self, classes: Tensor, batch: Batch, split: Dataset) -> list[str]:
        characters, keys = batch["characters"][Side.TEACHER.value].cpu(), batch.keys_
        assert keys is not None  # the collator puts them there
        contexts = [str(split[int(key)][self.section.context]) for key in keys]
        pieces = [(int(own[start, 0]), int(own[end, 1]))
                  for own, (start, end) in zip(characters, classes.cpu().unflatten(0, (-1, 2)), strict=True)]
        return [text[start:end] if end else "no answer" for text, (start, end) in zip(contexts, pieces, strict=True)]

    def segments(self, batch: Batch) -> list[Segment]:
        """Every window, with its places: the same tokens may part otherwise into question and passage."""
        there = (batch["places"][Side.TEACHER.value] >= 0).cpu().numpy()
        return [Segment(content(batch.teacher, one) + np.packbits(own).tobytes(), slice(2 * one, 2 * one + 2), one)
                for one, own in enumerate(there)]

    def exam(self) -> AnswerExam:
        return AnswerExam(self.section.longest_answer, self.maybe_none, self.section.language)

    @property
    def settles(self) -> bool:
        return self.maybe_none

    def settle(self, model: nn.Module, validation: Answers) -> None:
        """The threshold for no answer, into the model's config."""
        write(model, THRESHOLD, round(self.exam().threshold(validation), 4))

    def forget(self, model: nn.Module) -> None:
        without(model, THRESHOLD)

    def has_settled(self, model: nn.Module) -> bool:
        return says(model, THRESHOLD)

    def row_classes(self) -> int:
        return self.section.max_length

    def numbers_of(self, length: int) -> int:
        return 2 * length


def _nobody_knows(pool: Dataset, texts: Sequence[str]) -> None:
    """Which of two questions is the teacher's."""


def _usual_questions(pool: Dataset, texts: Sequence[str]) -> Sequence[str] | None:
    """The columns of passages and questions by their usual names; None where there are none of these."""
    lower = {name.lower(): name for name in reversed(texts)}
    contexts = [lower[name] for name in ("context", "passage", "paragraph") if name in lower]
    return [contexts[0], lower["question"]] if len(contexts) == 1 and "question" in lower else None
