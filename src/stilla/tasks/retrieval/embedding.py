"""Embedding: a vector for every text, so that what means the same is near."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.tasks.base import Prepared, Texts
from stilla.tasks.retrieval import forms, mining
from stilla.tasks.retrieval.crossing import Crossing
from stilla.tasks.retrieval.forms import Form
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.model import Embedder
from stilla.tasks.retrieval.naming import nowhere
from stilla.tasks.retrieval.reading import Reader
from stilla.tasks.retrieval.references import NOTHING_SEARCHED, labels_of, references
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.static import StaticModel
from stilla.tasks.retrieval.stored import Known
from stilla.tasks.retrieval.texts import Belonging, Collate
from stilla.tasks.retrieval.usage import EMBEDDING
from stilla.tasks.retrieval.vector_task import VectorTask
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.broken import empty, without_empty
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.privileged import columns_of_teacher, side_by_side
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import same_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedding(VectorTask):
    """Vectors of texts for search, pairs and neighbours: any encoder, pooled.

    An example has one text, or several: a pair, or a query with what answers it and what does not.
    """

    teachers: tuple[str, ...] = ()
    """The columns that teachers read instead of the form's; empty: the same."""
    students: tuple[str, ...] = ()
    """Of a teacher that reads others: its student's, by which a split is known that has the training's form."""

    kind: ClassVar[str] = "embedding"
    pipeline = "sentence-similarity"
    usage = EMBEDDING
    data_section = EmbeddingData

    # --- data ---

    @classmethod
    def understand(cls, section: EmbeddingData, splits: Mapping[str, Dataset]) -> Self:
        found, problems = forms.of_splits(section, splits)
        problems = [*nowhere(section, splits), *problems]
        measured = forms.by_kind(found)
        if section.documents == "teacher" and not {"search", "answered"} & {*measured}:
            problems.append(NOTHING_SEARCHED)
        form = found.get("train") or forms.of_pool(section)
        if section.train is not None and "train" not in splits:  # other data are measured, maybe of the training's columns
            form = next((one for one in found.values() if one.columns == form.columns), form)
        form = Form("texts", form.columns) if form.kind == "search" else form
        problems += mining.problems(section, form, splits["train"]) if "train" in found else []
        if problems:
            raise all_at_once(problems, DataError)
        return cls(section, form, measured, splits=splits)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        if not isinstance(model, Embedder | StaticModel):
            raise CompatibilityError(f"{type(model).__name__} does not say how its tokens become a vector; load it as "
                                     "stilla.tasks.retrieval.loading does")
        return cls(shape=replace(model.shape, width=model.width), width=model.width)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        # splits of another form, a search or pairs, are the same for both
        alike = {name: split for name, split in splits.items() if self._form(split) is self.form}
        found = columns_of_teacher(columns, "text", alike, self._labels())
        if found and len(found) != len(self.form.columns):
            raise DataError(f"teacher.data: got {len(found)} columns for the {len(self.form.columns)} texts of an example "
                            f"({_columns.named(self.form.columns)}); expected as many.")
        if found and self.mining is not None:
            raise CompatibilityError(mining.TEACHERS_COLUMNS)
        return replace(self, teachers=() if found == self.form.columns else found)

    def of_teacher(self) -> Self:
        columns = self.teachers or self.form.columns
        students = self.form.columns if self.teachers else self.students
        return replace(self, form=replace(self.form, columns=columns), teachers=(), students=students, found=None)

    def resolved(self, section: EmbeddingData) -> EmbeddingData:
        said = {} if self.shape is None else {"pooling": self.shape.pooling, "normalise": self.shape.normalised}
        return section.model_copy(update={"text": self.form.columns, "score": self.form.score, **said})

    def asked(self) -> Iterable[tuple[str, Iterable[str]]]:
        for name, split in self.splits.items():
            form = self._form(split)
            read = replace(form, columns=self.teachers) if self.teachers and form is self.form else form
            yield name, (text for column in forms.texts_of(read, split) for text in column)

    @property
    def has_labels(self) -> bool:
        """Pairs have scores, and queries what answers them; texts by themselves say nothing that is right."""
        return self.form.kind != "texts" or self.mining is not None

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        columns = tuple(dict.fromkeys((*self.form.columns, *self.teachers)))
        usual = partial(usual_texts, count=len(columns)) if len(columns) < 3 else lambda pool, texts: None
        return bound(pool, columns, called, _columns.is_text, "text", usual, self._labels())

    def usable(self, pool: Dataset) -> Dataset:
        texts = forms.texts_of(self.form, pool)
        return without_empty(self.section, "unlabelled", pool, texts, _columns.named(self.form.columns))

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns(list(dict.fromkeys((*self.form.columns, *self.teachers, *self._labels()))))

    @property
    def text_column(self) -> str | None:
        columns = (*self.form.columns, *self.teachers)
        return columns[0] if len(columns) == 1 else None

    def traces(self, split: Dataset) -> Iterable[tuple[str, ...]]:
        form = self._form(split)
        return zip(*([text or "" for text in column] for column in forms.texts_of(form, split)))

    def texts(self, split: Dataset, processor: Any) -> Texts:
        wanted = None if self.section is None else self.section.max_length
        form = self._form(split)
        lines = (line for column, kinds in zip(forms.texts_of(form, split), zip(*form.kinds(split)))
                 for line in processor.texts([text or "" for text in column], kinds))
        return _tokens.beginnings(processor.tokenizer, lines, _tokens.longest([processor.tokenizer], wanted))

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        return tokenizer

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Any:
        return replace(processor, tokenizer=tokenizer)

    def as_measured(self, processor: Any, teacher: Any) -> Any:
        if self.section is None or processor.whole:
            return processor
        beside = [] if self.teachers or isinstance(teacher, Crossing) else [teacher]  # who reads other texts cuts them alone
        return replace(processor, tokenizer=_tokens.no_longer(processor.tokenizer, beside, self.section.max_length))

    def _labels(self) -> tuple[str, ...]:
        return () if self.form.score is None else (self.form.score,)

    def _form(self, split: Dataset) -> Form:
        """A training's form, of what has its columns; a split that is measured has its own."""
        there = set(split.column_names)
        if set(self._learnt.columns) <= there and self.found is not None:
            return self.found
        if self.section is None or ({*self.form.columns, *self.students} <= there and "relevant" not in there):
            return self.form
        return forms.form_of(self.section, split)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        form = self._learnt if training else self._form(split)
        crossed = teacher if isinstance(teacher, Crossing) and training else None
        if isinstance(teacher, Crossing):  # asked about pairs, and about nothing that is measured
            teacher = None
        if teacher is not None and self.teachers and form is self.form:
            theirs = self.of_teacher().prepare(split, teacher, None, training=training, seed=seed)
            own = self.prepare(split, student, None, training=training, seed=seed)
            return replace(side_by_side(own, theirs), references=theirs.references)
        texts = forms.texts_of(form, split)
        read = [] if crossed is None else forms.texts_of(replace(form, columns=self.teachers or form.columns), split)
        keys = np.setdiff1d(np.arange(len(split)), empty([*texts, *read]))
        if not len(keys):
            raise DataError(f"there is no text left in {_columns.named(form.columns)}: all {len(split)} are empty.")
        chosen = split.select(keys)
        flat = [column[key] for key in keys for column in texts]
        kinds = [kind for of_example in form.kinds(chosen) for kind in of_example]
        length = _tokens.longest([student] if teacher is None else [student, teacher], self.section.max_length)
        tokens = self._tokens(student, flat, kinds, length, "the student's" if teacher is not None else "the")
        # in training, a teacher of the same rules may be asked about the very pieces that the student reads
        known = student.numbering(teacher) if teacher is not None and training else None
        shared = teacher is None or known is not None or student.same(teacher)
        others = tokens
        if crossed is not None:
            others, shared = crossed.pairs([[column[key] for column in read] for key in keys], self.section.max_length), False
        elif teacher is not None and (known is not None or not shared):
            others = self._tokens(teacher, flat, kinds, length, "the teacher's")
        collate = Collate(tokens, others, form.columns, labels_of(self.section, form, chosen), keys, known,
                          paired=crossed is not None, belonging=self._belonging(form, flat, chosen))
        return Prepared(
            examples=Positions(len(keys)), collate=collate,
            apart=None if known is None or same_pieces(tokens, others, known) else replace(collate, numbering=None),
            keys=keys, lengths=tokens.lengths.reshape(len(keys), -1).max(1).tolist(),
            references=None if training else references(self.section, form, chosen, flat, kinds, self.teacher),
            aligned=shared)

    def _belonging(self, form: Form, texts: Sequence[str], split: Dataset) -> Belonging | None:
        return Belonging.of(texts, are_unlabelled(split)) if form.kind == "answered" else None

    def _tokens(
        self, reader: Reader | Known, texts: Sequence[str], kinds: Sequence[Kind | None], length: int, whose: str
    ) -> _tokens.Tokens:
        tokens, cut = reader.tokens(texts, kinds, length)
        if cut:
            logger.warning("%d of %d texts are longer than %d of %s tokens: cut", cut, len(texts), length, whose)
        return tokens
