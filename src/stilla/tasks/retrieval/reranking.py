"""Reranking: a score for a query and a text read together, by which what a first search has found is put in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Prepared, Segment, Task, Texts, content
from stilla.tasks.retrieval import candidates, judge, privileged
from stilla.tasks.retrieval.candidates import Asked, Form
from stilla.tasks.retrieval.grades import unused
from stilla.tasks.retrieval.judge import Judge, Prompts
from stilla.tasks.retrieval.naming import nowhere
from stilla.tasks.retrieval.reranking_exam import Judgements, RerankingExam
from stilla.tasks.retrieval.sections import RerankingData
from stilla.tasks.retrieval.told import answered
from stilla.tasks.retrieval.usage import RERANKING
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.activations import activation_of, write_activation
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.broken import empty, refuse_empty, without_empty
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.imported import ImportedModel, check_answers
from stilla.tasks.shared.labels import Activation, Problem
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering, for_teacher, numbering, same_pieces

logger = logging.getLogger(__name__)

PAIR = ("query", "document")


@dataclass(frozen=True)
class Reranking(Task[RerankingData]):
    """Scores of candidates for a query, both read together: cross-encoders with one output.

    In training an example is a query with some of its candidates, whose pairs stand one after the other in a batch, so that
    they are never apart; what is measured is read pair by pair, and put together afterwards. A row is a pair: its score is
    the raw logit.
    """

    section: RerankingData | None = None
    """None for a model whose batches a person makes."""
    form: Form = field(default_factory=lambda: Form("pairs", PAIR))
    """Of what is learnt from."""
    judged: bool = True
    """Whether any split that is measured says what answers a query."""
    activation: Activation = "none"
    """What the teacher's folder says that its scores are of its logits; saved with the student."""
    teacher: Loaded | None = field(default=None, compare=False, repr=False)
    """Whose order of the candidates others are held against."""
    theirs: tuple[str, ...] = ()
    """The columns of what teachers read in place of the query and its candidates; empty: the same."""
    longest: int | None = None
    """How much of a pair they read, where that is not as much."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and reads that."""

    kind: ClassVar[str] = "reranking"
    pipeline = "text-ranking"
    usage = RERANKING
    data_section = RerankingData
    heads: ClassVar[tuple[str, ...]] = ("ForSequenceClassification",)
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "queries")
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))

    # --- data ---

    @classmethod
    def understand(cls, section: RerankingData, splits: Mapping[str, Dataset]) -> Self:
        problems = nowhere(section, splits)
        found: dict[str, Form] = {}
        for name, split in splits.items():
            try:
                found[name] = form = candidates.form_of(section, split)
                problems += candidates.problems_of(form, name, split)
                refuse_empty(section, name, split, candidates.texts_of(form, split), _columns.named(form.columns))
            except DataError as error:
                problems += [one if one.startswith(f"data.{name}") else f"{one} (data.{name})" for one in error.problems]
        if not problems and section.grades:
            problems += unused(section, [(splits[name], form.score) for name, form in found.items()])
        if problems:
            raise all_at_once(problems, DataError)
        form = found.get("train") or Form("pairs", section.text or PAIR)
        measured = [one for name, one in found.items() if name != "train"] or [form]
        return cls(section, form, any(one.is_judged for one in measured))

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        _refuse_several(config, type(model).__name__)
        return cls(activation=activation_of(config, type(model).__name__))

    def resolved(self, section: RerankingData) -> RerankingData:
        text = section.text if self.form.kind == "search" else self.form.columns
        return section.model_copy(update={"text": text, "score": self.form.score or section.score})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """Queries and documents in another language, whole documents in place of passages."""
        return replace(self, theirs=privileged.columns(self.section, columns, splits))

    def taught_at_length(self, length: int) -> Self:
        same = self.section is not None and length == self.section.max_length
        return self if same else replace(self, longest=length)

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self._told else self

    @property
    def _told(self) -> bool:
        return bool(self.theirs) or self.longest is not None

    def _length(self, *tokenizers: Any) -> int:
        """How much of a pair this task's models read."""
        own = None if self.section is None else self.section.max_length
        return _tokens.longest(tokenizers, self.longest if self.as_teacher and self.longest is not None else own)

    def adapted_to(self, teacher: Loaded) -> Self:
        if isinstance(teacher.model, Judge):
            return replace(self, activation="none", teacher=teacher)
        config: Any = teacher.model.config
        _refuse_several(config, teacher.source)
        return replace(self, activation=activation_of(config, teacher.source), teacher=teacher)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        if self.section is not None and self.section.asking is not None and not isinstance(teacher.model, Judge):
            raise CompatibilityError(f"data.asking: says how a language model is asked, and {teacher.source} is a "
                                     f"cross-encoder "
                                     "with a score of its own; leave it out")
        return self

    def pattern(self, teacher: Loaded) -> Loaded:
        if isinstance(teacher.model, Judge):
            judge.refuse_cut(teacher.source)
        return teacher

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if labelled and judge.is_one(source):
            return judge.load(source, None if self.section is None else self.section.asking)
        problem = Problem("number", (), activation=self.activation)
        model = loading.classifier(source, problem, AutoModelForSequenceClassification, labelled=labelled)
        tokenizer = _tokens.tokenizer_for(source, model)
        if isinstance(model, ImportedModel):
            tokens, _ = _tokens.tokenise(tokenizer, [["a b", "a"]] * 2, max_length=8)
            check_answers(model, tokens.batch([0, 1]), source.model)
        elif not labelled:
            write_activation(model.config, self.activation)
        return Loaded(model, tokenizer, source.model)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        """However it was made, its folder says what its scores are: sentence-transformers takes a sigmoid where none does."""
        write_activation(model.config, self.activation)
        return model

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return (ObjectiveSpec(kind="logits", divergence="mse"),)

    @property
    def has_labels(self) -> bool:
        return self.form.is_judged

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        if self.form.kind == "search":
            raise CompatibilityError("data.unlabelled: stands beside pairs, triples or lists, and these data are a folder "
                                     "for search. Give the training data as rows of a query and a candidate")
        columns, labels = (*self.form.columns, *self._beside), () if self.form.score is None else (self.form.score,)
        # alone, nobody has seen before whether candidates stand in lists
        lists = self.form.kind == "lists" or self.section is None or self.section.train is None

        def usual(pool: Dataset, texts: Sequence[str]) -> Sequence[str] | None:
            found = None if self._beside else candidates.usual(pool)  # which is the teacher's, nobody knows
            return found if found is not None and len(found) == len(columns) and {*found} <= {*texts} else None

        fits, what = (privileged.is_read, "text, or lists of text") if lists else (_columns.is_text, "text")
        return bound(pool, columns, called, fits, what, usual, labels)

    def usable(self, pool: Dataset) -> Dataset:
        columns = (*self.form.columns, *self._beside)
        texts = candidates.texts_of(replace(self.form, columns=columns), pool)
        found = without_empty(self.section, "unlabelled", pool, texts, _columns.named(columns))
        privileged.refuse_other_lists("unlabelled", self.form.columns, self.theirs, found)
        return found

    @property
    def _beside(self) -> tuple[str, ...]:
        """Columns that only teachers read."""
        return tuple(one for one in self.theirs if one not in self.form.columns)

    def beside(self, split: Dataset) -> Dataset:
        scores = [] if self.form.score is None else [self.form.score]
        return split.select_columns([*self.form.columns, *self._beside, *scores])

    def traces(self, split: Dataset) -> Iterable[tuple[str, ...]]:
        """The queries: candidates are of one collection, whatever is asked of it."""
        return ((query or "",) for query in candidates.queries_of(self._form(split), split))

    def texts(self, split: Dataset, processor: Any) -> Texts:
        form = self._form(split)
        lines = (text for column in form.columns for row in _columns.values(split, column)
                 for text in (row if isinstance(row, list) else [row]) if text)
        return _tokens.beginnings(processor, lines, self._length(processor))

    def as_measured(self, processor: Any, teacher: Any) -> Any:
        others = [] if self._told else [teacher]  # who reads other texts cuts them alone
        return processor if self.section is None else _tokens.no_longer(processor, others, self.section.max_length)

    def _form(self, split: Dataset) -> Form:
        """A training's form, of what has its columns and nothing that says more; a split that is measured has its own."""
        if self.section is None:
            return self.form
        return candidates.form_of(self.section, split)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        form = self.form if training else self._form(split)
        every = replace(form, columns=(*form.columns, *self.theirs))
        kept = np.setdiff1d(np.arange(len(split)), empty(candidates.texts_of(every, split)))
        asked = candidates.read(form, split, kept.tolist(), training=training, most=self.section.candidates,
                                theirs=self.theirs)
        if not asked:
            raise DataError(f"there is no query with a candidate left in {_columns.named(form.columns)}, of {len(split)} "
                            "rows.")
        told = teacher is not None and self._told and not self.as_teacher
        length = self._length(student, *([] if teacher is None or told else [teacher]))
        pairs = candidates.flat(asked, theirs=self.as_teacher and bool(self.theirs))
        tokens = _read(student, pairs, length, "the student's" if teacher is not None else "the")
        # in training, a teacher of the same rules is asked about the very pieces that the student reads
        alike = teacher is student or not any(isinstance(one, Prompts) for one in (student, teacher))
        known = numbering(student, teacher) if training and teacher is not None and alike and not told else None
        shared = teacher is None or known is not None or (alike and not told and _tokens.same(student, teacher))
        theirs = self._theirs(asked)
        others = tokens if shared and known is None else (
            self.of_teacher()._reads(teacher, theirs) if told else _read(teacher, pairs, length, "the teacher's"))
        sizes = [len(one.names) for one in asked]
        borders = np.cumsum([0, *sizes]) if training else np.arange(sum(sizes) + 1)
        keys = np.array([row for one in asked for row in ([one.row] if training else one.rows)], np.int64)
        collate = _Collate(tokens, others, borders, _labels(form, asked), keys, known)
        return Prepared(
            examples=Positions(len(keys)), collate=collate, keys=keys,
            apart=None if known is None or same_pieces(tokens, others, known) else replace(collate, numbering=None),
            lengths=np.maximum.reduceat(tokens.lengths, borders[:-1]).tolist(),
            references=None if training else Judgements(asked, self._asking(theirs)), aligned=shared)

    def _theirs(self, asked: Sequence[Asked]) -> tuple[list[str], list[str]]:
        """What teachers read of all pairs."""
        return candidates.flat(asked, theirs=bool(self.theirs))

    def _reads(self, tokenizer: Any, pairs: tuple[list[str], list[str]]) -> _tokens.Tokens:
        """What a teacher by itself makes of pairs."""
        return _read(tokenizer, pairs, self._length(tokenizer), "the teacher's")

    def _asking(self, pairs: tuple[list[str], list[str]]) -> Any:
        """Asks the teacher for its scores, with its own tokenizer; None where there is none."""
        if self.teacher is None:
            return None
        model, processor = self.teacher.model, self.teacher.processor

        def ask() -> NDArray[np.float64]:
            return answered(model, self.of_teacher()._reads(processor, pairs), self.outputs)[:, 0]

        return ask

    # --- batches and signals ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        mask, labels = self.mask(batch, Side.STUDENT), batch.labels
        known = 0
        if labels is not None:
            known = int((~labels.isnan() if labels.is_floating_point() else labels != NO_ANSWER).sum())
        several = int((torch.bincount(_queries(batch, len(mask))) > 1).sum())
        return {"rows": len(mask), "labelled": known, "tokens": int(mask.sum()), "examples": len(mask), "queries": several}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        logits = self.outputs(outputs)
        return Signals(logits=Dense(logits), labels=batch.labels, queries=_queries(batch, len(logits)).to(logits.device))

    def segments(self, batch: Batch) -> list[Segment]:
        return [Segment(content(batch.teacher, pair), slice(pair, pair + 1), pair)
                for pair in range(len(next(iter(batch.teacher.values()))))]

    def row_classes(self) -> int:
        return 1

    def exam(self) -> RerankingExam:
        return RerankingExam(self.judged)


def _refuse_several(config: Any, source: str) -> None:
    if len(config.id2label) != 1:
        raise CompatibilityError(f"{source} has {len(config.id2label)} outputs; expected one score of a query and a text. A "
                                 "head of several classes is for task: text-classification; to train a reranker of it first, "
                                 "say teacher: {train: {}}")


def _read(tokenizer: Any, pairs: tuple[list[str], list[str]], length: int, whose: str) -> _tokens.Tokens:
    prompts = isinstance(tokenizer, Prompts)
    tokens, cut = tokenizer.tokens(pairs, length) if prompts else _tokens.tokenise(tokenizer, pairs, length)
    if cut:
        logger.warning("%d of %d pairs are longer than %d of %s tokens: cut", cut, len(pairs[0]), length, whose)
    return tokens


def _labels(form: Form, asked: Sequence[Asked]) -> NDArray[Any] | None:
    """(pairs,): scores as they are; of grades whether they are above 0. None where nobody has said any."""
    if not form.is_judged:
        return None
    grades = np.array([grade for one in asked for grade in one.grades], np.float32)
    return grades if form.amounts else np.where(np.isnan(grades), NO_ANSWER, grades > 0).astype(np.int64)


def _queries(batch: Batch, pairs: int) -> Tensor:
    """(pairs,): of which query each is; where nobody says it, each of its own."""
    queries: Tensor | None = batch.get("queries")
    return torch.arange(pairs) if queries is None else queries


@dataclass(frozen=True)
class _Collate:
    """Examples -> a batch of all of their pairs; example i has those from `borders[i]` on."""

    student: _tokens.Tokens
    teacher: _tokens.Tokens
    borders: NDArray[np.int64]
    labels: NDArray[Any] | None
    keys: NDArray[np.int64]
    numbering: Numbering | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        spans = [np.arange(self.borders[one], self.borders[one + 1]) for one in examples]
        pairs = np.concatenate(spans)
        student = self.student.batch(pairs.tolist())
        teacher = for_teacher(student, pairs.tolist(), self.student, self.teacher, self.numbering)
        queries = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(self.keys[list(examples)]),
                      queries=torch.from_numpy(queries))
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[pairs])
        return batch
