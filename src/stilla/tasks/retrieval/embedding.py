"""Embedding: a vector for every text, so that what means the same is near."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Dims, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Prepared, Segment, Task, Texts, content
from stilla.tasks.retrieval import crossing, fewer, forms, loading, mining, static, stored
from stilla.tasks.retrieval.crossing import Crossing
from stilla.tasks.retrieval.exam import EmbeddingExam
from stilla.tasks.retrieval.forms import Form, Kinds
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.mining import Mines, Mining
from stilla.tasks.retrieval.model import Embedder, Shape
from stilla.tasks.retrieval.naming import nowhere
from stilla.tasks.retrieval.reading import Reader
from stilla.tasks.retrieval.references import NOT_DRAWN, NOTHING_SEARCHED, OTHER_WIDTH, labels_of, references
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.static import StaticModel
from stilla.tasks.retrieval.stored import Known, Table
from stilla.tasks.retrieval.texts import ALONE, Collate, names_in
from stilla.tasks.retrieval.usage import EMBEDDING
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.broken import empty, without_empty
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.privileged import columns_of_teacher, side_by_side
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import same_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedding(Task[EmbeddingData], Mines):
    """Vectors of texts for search, pairs and neighbours: any encoder, pooled.

    An example has one text, or several: a pair, or a query with what answers it and what does not. Its texts stand one after
    the other in a batch. A row is what an example's scores are: how near its first text is to each of the others, so that all
    objectives over rows work; a text by itself has none.
    """

    section: EmbeddingData | None = None
    """None for a model whose batches a person makes."""
    form: Form = field(default_factory=lambda: Form("texts", ALONE))
    """Of what is learnt from."""
    measured: Mapping[Kinds, Form] = field(default_factory=dict)
    """Of what is measured, by kind, that of the validation data first."""
    found: Form | None = None
    """Of what is learnt once the teacher has found what does not answer its queries."""
    teachers: tuple[str, ...] = ()
    """The columns that teachers read instead of the form's; empty: the same."""
    shape: Shape | None = None
    """The teacher's; None where no teacher is known, or only its vectors are."""
    width: int | None = None
    """Numbers of the teacher's vectors."""
    splits: Mapping[str, Dataset] = field(default_factory=dict, compare=False, repr=False)
    """All that is read, until the teacher is known who has to answer for it."""
    teacher: Loaded | None = field(default=None, compare=False, repr=False)
    """Whose vectors those of texts by themselves are held against."""
    crossing: Crossing | None = field(default=None, compare=False, repr=False)
    """How the teacher reads, where it reads a query and a text together and has no vectors."""
    sketch: bool = False
    """Whether a table's numbers are any, and no teacher is asked for them."""

    kind: ClassVar[str] = "embedding"
    pipeline = "sentence-similarity"
    usage = EMBEDDING
    data_section = EmbeddingData
    distributions: ClassVar[bool] = False
    answer: ClassVar[str] = "sentence_embedding"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))

    # --- data ---

    @classmethod
    def understand(cls, section: EmbeddingData, splits: Mapping[str, Dataset]) -> Self:
        found, problems = forms.of_splits(section, splits)
        problems = [*nowhere(section, splits), *problems]
        measured = forms.by_kind(found)
        if section.documents == "teacher" and not {"search", "answered"} & {*measured}:
            problems.append(NOTHING_SEARCHED)
        form = found.get("train") or forms.of_pool(section)
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
        return replace(self, form=replace(self.form, columns=columns), teachers=(), found=None)

    def resolved(self, section: EmbeddingData) -> EmbeddingData:
        said = {} if self.shape is None else {"pooling": self.shape.pooling, "normalise": self.shape.normalised}
        return section.model_copy(update={"text": self.form.columns, "score": self.form.score, **said})

    def adapted_to(self, teacher: Loaded) -> Self:
        model: Any = teacher.model
        if isinstance(teacher.processor, Crossing):
            if self.section is not None:
                crossing.refuse_unfit(self.section, self.form, self.measured, teacher.processor, teacher.source)
            return replace(self, crossing=teacher.processor, shape=None, width=None, teacher=None, splits={})
        if self.section is not None:
            fewer.refuse_unfit(self.section, model.width, self.measured, keeps_the_index=self.keeps_the_index)
        known = isinstance(model, Table)
        if known:
            stored.refuse_lacking(teacher.processor, self._asked())  # before a training, not when its end is measured
        shape = None if known else replace(model.shape, width=model.width)
        return replace(self, shape=shape, width=model.width, teacher=teacher, crossing=None, splits={})

    def _asked(self) -> Iterable[tuple[str, Iterable[str]]]:
        """By split, all that a teacher is asked about."""
        for name, split in self.splits.items():
            form = self._form(split)
            read = replace(form, columns=self.teachers) if self.teachers and form is self.form else form
            yield name, (text for column in forms.texts_of(read, split) for text in column)

    def pattern(self, teacher: Loaded) -> Loaded:
        if isinstance(teacher.model, Table):
            stored.refuse_cut(teacher.source)
        if isinstance(teacher.processor, Crossing):
            crossing.refuse_cut(teacher.source)
        return teacher

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        """A task may be adapted to a student that was trained; vectors are held against the teacher's, where it has some."""
        if isinstance(teacher.processor, Crossing):
            model: Any = student.model
            return replace(self, shape=replace(model.shape, width=model.width), width=model.width, teacher=None)
        if self.keeps_the_index and student.model.width != teacher.model.width:
            raise CompatibilityError(OTHER_WIDTH.format(student.model.width, teacher.model.width))
        return replace(self, teacher=teacher)

    @property
    def keeps_the_index(self) -> bool:
        """Whether what the student makes of queries is searched among the teacher's vectors."""
        return self.section is not None and self.section.documents == "teacher"

    def idle(self, terms: Sequence[Term]) -> list[str]:
        if self.keeps_the_index and fewer.undrawn(terms):
            return [NOT_DRAWN]
        misled = [] if self.crossing is None else crossing.misled(terms)
        return [*misled, *fewer.unlearnt(self._beginnings, terms), *mining.unlearnt(self.mining, terms)]

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if source.is_stored and labelled:
            return stored.load(source)
        if labelled and crossing.is_one(source):
            return crossing.load(source)
        prompts = {} if self.section is None else self.section.prompts
        said = (None, None)  # of the teacher: a student is like it where its own folder says nothing
        if self.section is not None and self.shape is None:
            said = (self.section.pooling, self.section.normalise)  # type: ignore[assignment]
        return loading.load(source, *said, prompts, None if labelled else self.shape, trained=labelled)

    def sketched(self) -> Self:
        return replace(self, sketch=True)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        wanted = None if self.section is None else self.section.dimensions
        width = wanted or self.width
        if spec.static:
            assert self.teacher is not None  # students are made once it is known
            return static.any_of_its_shape(self.teacher, width) if self.sketch else static.made_from(self.teacher, width)
        if self.crossing is not None and wanted is not None:
            fewer.refuse_more(wanted, model)
        return fewer.widened(model, width, adapters=spec.lora is not None)

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        return replace(student, processor=static.reader_of(student.processor)) if spec.static else student

    def unmeasured(self, teacher: Loaded) -> str | None:
        return crossing.UNMEASURED if isinstance(teacher.processor, Crossing) else None

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        if self.crossing is not None:
            return crossing.learnt_by(self._learnt.classes)
        return (*fewer.learnt_by(self._beginnings), *mining.learnt_by(self.mining))

    @property
    def _beginnings(self) -> tuple[int, ...]:
        return () if self.section is None else self.section.matryoshka

    @property
    def has_labels(self) -> bool:
        """Pairs have scores, and of several candidates the first answers the query; texts, and queries with an answer each,
        say nothing that is right for one example by itself."""
        return self.form.kind == "scored" or self._learnt.classes > 1 or self.mining is not None

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

    def _labels(self) -> tuple[str, ...]:
        return () if self.form.score is None else (self.form.score,)

    def _form(self, split: Dataset) -> Form:
        """A training's form, of what has its columns; a split that is measured has its own."""
        there = set(split.column_names)
        if set(self._learnt.columns) <= there and self.found is not None:
            return self.found
        if self.section is None or (set(self.form.columns) <= there and "relevant" not in there):
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
                          paired=crossed is not None)
        return Prepared(
            examples=Positions(len(keys)), collate=collate,
            apart=None if known is None or same_pieces(tokens, others, known) else replace(collate, numbering=None),
            keys=keys, lengths=tokens.lengths.reshape(len(keys), -1).max(1).tolist(),
            references=None if training else references(self.section, form, chosen, flat, kinds, self.teacher),
            aligned=shared)

    def _tokens(
        self, reader: Reader | Known, texts: Sequence[str], kinds: Sequence[Kind | None], length: int, whose: str
    ) -> _tokens.Tokens:
        tokens, cut = reader.tokens(texts, kinds, length)
        if cut:
            logger.warning("%d of %d texts are longer than %d of %s tokens: cut", cut, len(texts), length, whose)
        return tokens

    # --- what the teacher finds ---

    @property
    def _learnt(self) -> Form:
        return self.found or self.form

    @property
    def mining(self) -> Mining | None:
        if self.section is None or self.section.negatives is None:
            return None
        return Mining(self.section.negatives, self.form, self.exam().as_compared, self.shape, self.section.max_length)

    def found_by(self, teacher: Loaded) -> tuple[Mining, Loaded]:
        assert self.section is not None  # the caller knows
        assert self.mining is not None
        if self.mining.section.by is None:
            return self.mining, teacher
        finder, shape = loading.finder(self.mining.section.by, self.section.pooling, self.section.normalise)
        exam = EmbeddingExam(self.measured, dot=shape is not None and shape.similarity == "dot")
        return replace(self.mining, as_compared=exam.as_compared, shape=shape), finder

    def with_found(self, form: Form) -> Self:
        return replace(self, found=form)

    # --- batches and signals ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        mask, labels = self.mask(batch, Side.STUDENT), batch.labels
        known = 0
        if labels is not None:
            known = int((~labels.isnan() if labels.is_floating_point() else labels != NO_ANSWER).sum())
        return {"rows": len(mask) // len(names_in(batch)), "labelled": known, "tokens": int(mask.sum()),
                "examples": len(mask)}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        if side is Side.TEACHER and self.crossing is not None:
            return Signals(logits=Dense(self._in_rows(self.outputs(outputs), batch)))
        return self._said(self.outputs(outputs), batch)

    def _in_rows(self, scores: Float[Tensor, "pairs 1"], batch: Batch) -> Float[Tensor, "rows candidates"]:
        return scores.reshape(-1, len(names_in(batch)) - 1)

    def _said(self, vectors: Float[Tensor, "texts width"], batch: Batch) -> Signals:
        names = names_in(batch)
        embeddings = {name: vectors[place :: len(names)] for place, name in enumerate(names)}
        first, *others = embeddings.values()
        if not others:
            return Signals(embeddings=embeddings)
        # told apart by a softmax they need a scale; one number is held against a score as it is
        scale = 1.0 if len(others) == 1 or self.section is None else self.section.scale
        scores = torch.stack([self._alike(first, other) for other in others], -1) * scale
        return Signals(logits=Dense(scores), labels=batch.labels, embeddings=embeddings)

    def _alike(self, one: Float[Tensor, "batch width"], other: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        if self.shape is not None and self.shape.similarity == "dot":
            return (one * other).sum(-1)
        return torch.nn.functional.cosine_similarity(one, other, dim=-1)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.embeddings or not isinstance(teacher.logits, Dense):
            return student, teacher
        said = teacher.logits.logits
        if self.crossing is not None:  # a cache has pair by pair what it says, as it says it
            return student, Signals(logits=Dense(self.crossing.scores(self._in_rows(said, batch))))
        return student, replace(self._said(said, batch), stacks=teacher.stacks)  # of a cache

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        """A vector of every text, or a score of every pair, in the order of the batch."""
        if self.crossing is not None:
            assert isinstance(teacher.logits, Dense)
            return Signals(logits=Dense(teacher.logits.logits.reshape(-1, 1)))
        vectors = torch.stack([*teacher.embeddings.values()], 1).flatten(0, 1)
        return Signals(logits=Dense(vectors), stacks=teacher.stacks)

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes(), embedding=0 if self.crossing is not None else stored.classes)

    def segments(self, batch: Batch) -> list[Segment]:
        return [Segment(content(batch.teacher, text), slice(text, text + 1), text)
                for text in range(len(next(iter(batch.teacher.values()))))]

    def embedding_width(self, model: nn.Module) -> int:
        return model.width if isinstance(model, Embedder | StaticModel | Table) else 0

    def row_classes(self) -> int:
        return self._learnt.classes

    def teacher_classes(self) -> int:
        """Numbers of a vector: what is stored of a text; of a pair its score."""
        return 1 if self.crossing is not None else self.width or self.row_classes()

    def numbers_of(self, length: int) -> int:
        return (self.width or self.row_classes()) * len(self._learnt.columns)

    def exam(self) -> EmbeddingExam:
        dot = self.shape is not None and self.shape.similarity == "dot"
        return EmbeddingExam(self.measured, dot=dot, first=self._beginnings)
